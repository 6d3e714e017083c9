"""A packet socket with a ring, on one of a pair of interfaces in a namespace of its own."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.linux.hardware.network import Network, needs_network

from lamina_hardware.io.media.packet import PacketMedium
from lamina_net.offload.headers import is_ipv4_sum_good, is_transport_sum_good, parse

BROADCAST, PEER = b"\xff" * 6, bytes.fromhex("020000000002")
ETHERTYPE = b"\x88\xb5"
UDP_SEGMENT = 103


def frame(payload: bytes, size: int = 60, tag: bytes = b"") -> bytes:
    """Returns a frame of `size` bytes without its tag that the kernel itself does nothing with."""
    return BROADCAST + PEER + tag + ETHERTYPE + payload.ljust(size - 14, b"\0")


@pytest.fixture(params=[1500])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Returns a pair of interfaces with this MTU."""
    needs_network()
    made = Network(request.param)
    yield made
    made.close()


@pytest.fixture
def medium(network: Network) -> Iterator[PacketMedium]:
    """Returns a medium on `right`."""
    made = network.do(lambda: PacketMedium("right"))
    yield made
    made.close()


@pytest.fixture
def peer(network: Network) -> Iterator[socket.socket]:
    """Returns a plain socket on `left`."""
    with network.end("left") as end:
        yield end


async def hear(medium: PacketMedium, eventually: Any, count: int) -> list[bytes]:
    """Returns what the medium delivers, once that are `count` frames."""
    heard: list[bytes] = []
    medium.attach(asyncio.get_running_loop(), heard.extend)
    await eventually(lambda: len(heard) >= count, f"{count} frames, there are {len(heard)}")
    return heard


def taken(end: socket.socket) -> list[bytes]:
    """Returns all that a plain socket has heard by now."""
    found = []
    while True:
        try:
            found.append(end.recv(65536))
        except BlockingIOError:
            return found


async def test_frames_keep_order_and_tags(
    network: Network, medium: PacketMedium, peer: socket.socket, eventually: Callable[..., Any]
) -> None:
    """What the other side sends is heard in its order, customer and service tags as they were; ours is not heard."""
    tags = (b"", b"\x81\x00\x20\x64", b"", b"\x88\xa8\x00\x07")
    sent = [frame(b"%d" % n, tag=tags[n % 4]) for n in range(40)]
    medium.send([frame(b"ours")])
    for one in sent:
        peer.send(one)
    assert await hear(medium, eventually, len(sent)) == sent
    assert medium.lost == 0


@pytest.mark.parametrize("network", [9000], indirect=True)
async def test_long_frames_pass_both_ways(
    medium: PacketMedium, peer: socket.socket, eventually: Callable[..., Any]
) -> None:
    """Frames of an MTU of 9000 pass whole, with and without a tag; one that is longer is lost and counted."""
    sent = [frame(b"x", 9014), frame(b"y", 9014, b"\x81\x00\x00\x05"), frame(b"z", 60)]
    for one in sent:
        peer.send(one)
    assert await hear(medium, eventually, 3) == sent
    taken(peer)
    medium.send([frame(b"out", 9014), frame(b"too long", 9100), frame(b"after")])
    came: list[bytes] = []

    def all_came() -> bool:
        came.extend(taken(peer))
        return len(came) == 2

    await eventually(all_came, "two of three frames")
    assert [len(one) for one in came] == [9014, 60]
    assert medium.lost == 1


async def test_a_frame_longer_than_a_slot_comes_whole(
    network: Network, medium: PacketMedium, peer: socket.socket, eventually: Callable[..., Any]
) -> None:
    """When the MTU grows behind our back, frames that no slot holds still come whole and in their order."""
    for name in ("left", "right"):
        network.run(f"ip link set {name} mtu 9000")
    sent = [frame(b"%d" % n, 9014 if n % 2 else 60) for n in range(20)]
    for one in sent:
        peer.send(one)
    assert await hear(medium, eventually, len(sent)) == sent
    assert medium.lost == 0


async def test_what_the_ring_has_no_room_for_is_counted(
    medium: PacketMedium, peer: socket.socket, eventually: Callable[..., Any]
) -> None:
    """A reader that is too slow loses frames; those that it gets and those that are counted are all that were sent."""
    for n in range(2500):
        peer.send(frame(b"%d" % n))
    assert 0 < medium.lost < 2500
    heard: list[bytes] = []
    medium.attach(asyncio.get_running_loop(), heard.extend)  # some may be under way still
    await eventually(lambda: len(heard) + medium.lost == 2500, "each frame is heard or counted")
    sent = iter([frame(b"%d" % n) for n in range(2500)])
    assert heard and all(one in sent for one in heard), "what is heard is what was sent, in its order"


def speak(network: Network) -> None:
    """Gives `left` an address and a neighbour on the other side, so that the kernel itself sends frames."""
    network.run("ip addr add 10.9.0.1/24 dev left")
    network.run("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev left")


async def test_frames_of_the_kernel_are_finished(
    network: Network, medium: PacketMedium, eventually: Callable[..., Any]
) -> None:
    """What the kernel leaves to hardware is done: the checksum of a datagram, and the cutting of many into one each."""
    speak(network)
    payload = bytes(range(250)) * 40

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"one", ("10.9.0.2", 7))
            end.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1400)
            end.sendto(payload, ("10.9.0.2", 7))

    network.do(send)
    heard = await hear(medium, eventually, 1 + 8)
    datagrams = [(one, parse(one)) for one in heard if parse(one).protocol == socket.IPPROTO_UDP]
    assert all(is_ipv4_sum_good(one, headers) and is_transport_sum_good(one, headers) for one, headers in datagrams)
    assert all(one[headers.l4 + 6 : headers.l4 + 8] != b"\0\0" for one, headers in datagrams)
    first, *rest = [one[headers.payload : headers.end] for one, headers in datagrams]
    assert (first, b"".join(rest), [len(one) for one in rest]) == (b"one", payload, [1400] * 7 + [200])
    assert medium.lost == 0


async def test_an_interface_that_goes(network: Network, medium: PacketMedium, eventually: Callable[..., Any]) -> None:
    """It is counted once, and does not keep the loop busy; sending then loses."""
    loop = asyncio.get_running_loop()
    calls = 0
    readable = medium._readable

    def counted(deliver: Any) -> None:
        nonlocal calls
        calls += 1
        readable(deliver)

    medium._readable = counted  # type: ignore[method-assign]
    medium.attach(loop, lambda frames: None)
    network.run("ip link del left")
    await eventually(lambda: medium.lost == 1, "the end of the interface")
    seen = calls
    for _ in range(50):
        await asyncio.sleep(0)
    assert calls <= seen + 1
    medium.send([frame(b"nowhere")])
    assert medium.lost == 2


def test_closing_gives_everything_back(network: Network) -> None:
    """Sockets and ring are gone after it, also after an opening that failed; twice is once."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("socket:" in line for line in maps)

    before = descriptors()
    medium = network.do(lambda: PacketMedium("right"))
    assert mapped() == 1
    medium.close()
    medium.close()
    with pytest.raises(Exception, match="cannot be had"):
        network.do(lambda: PacketMedium("missing0"))
    assert (descriptors(), mapped()) == (before, 0)
