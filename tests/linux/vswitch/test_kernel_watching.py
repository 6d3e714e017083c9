"""Captures, mirrors and records of ports that are devices of the kernel: what only the kernel has is seen too."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence

import pytest
from tests.linux.vswitch.device_bench import ALL, SWITCH, A, B, Bench, C, D, frame, long_tcp, opened, tag

from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import load_of
from lamina_vswitch.domain.policy.settings import Security, StormControl
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.switch.topology import Port

SOME = 16_000
STAMPS = 35  # SO_TIMESTAMPNS
IN, OUT = Direction.INGRESS, Direction.EGRESS


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Returns a switch in the kernel, which gives frames their time when they come, not when they are read."""
    with opened() as made, made.network.end("left") as ear, made.network.end("right") as mouth:
        ear.setsockopt(socket.SOL_SOCKET, STAMPS, 1)
        while not comes_stamped(ear, mouth):  # the kernel begins with it in its own time, and goes on while one asks
            pass
        yield made


def comes_stamped(ear: socket.socket, mouth: socket.socket) -> bool:
    """Return whether a frame has the time at which it was sent."""
    mouth.send(frame(ALL, D))
    sent_ns = time.time_ns()
    assert select.select([ear], [], [], 20)[0]
    told = ear.recvmsg(100, 100)[1]
    seconds, nanoseconds = struct.unpack("=qq", next(data for _, kind, data in told if kind == STAMPS))
    return bool(seconds * 1_000_000_000 + nanoseconds < sent_ns)


class Ears:
    """An observer that wants to hear of some slots."""

    def __init__(self, *slots: int) -> None:
        self.slots = slots
        self.told: list[tuple[int, Direction, str, bytes]] = []
        self.gone = 0

    def wants(self, port: Port) -> bool:
        """Want some."""
        return port.slot in self.slots

    def missed(self, port: Port, direction: Direction, count: int, now_ns: int) -> None:
        """Count."""
        self.gone += count

    def passed(self, port: Port, direction: Direction, frames: Sequence[bytes], now_ns: int) -> None:
        """Note frames that pass."""
        self.told += [(port.slot, direction, "", each) for each in frames]

    def dropped(
        self, port: Port, direction: Direction, reason: DropReason, frames: Sequence[bytes], now_ns: int
    ) -> None:
        """Note frames that are dropped."""
        self.told += [(port.slot, direction, reason.name, each) for each in frames]

    def take(self) -> list[tuple[int, Direction, str, bytes]]:
        """Return what was told since."""
        told, self.told = self.told, []
        return told


def test_frames_between_two_devices_are_told(bench: Bench) -> None:
    """At the ports that are wanted, in both directions, once each, while somebody wants them."""
    bench.veth(1)
    bench.veth(2)
    bench.port(3)
    ears = bench.engine.observer = Ears(1, 2)
    bench.send(1, frame(ALL, A))
    assert ears.take() == [(1, IN, "", frame(ALL, A)), (2, OUT, "", frame(ALL, A)), (3, OUT, "", frame(ALL, A))]
    bench.send(2, frame(A, B))
    assert ears.take() == [(2, IN, "", frame(A, B)), (1, OUT, "", frame(A, B))]
    bench.engine.transmit(3, [frame(A, C)], 0)
    bench.engine.listen_outside(0)
    assert ears.take() == [(3, IN, "", frame(A, C)), (1, OUT, "", frame(A, C))]
    assert bench.engine.copy(1, [frame(D, B)], 0) == 1
    bench.engine.listen_outside(0)
    assert ears.take() == [(1, OUT, "", frame(D, B))]
    assert watched(bench) == ["w1", "w2"]
    assert [len(bench.heard(slot)) for slot in (1, 2, 3)] == [3, 1, 1]
    ears.slots = (2,)
    bench.engine.observer = ears
    bench.send(1, frame(B, A))
    assert (ears.take(), watched(bench)) == ([(2, OUT, "", frame(B, A))], ["w2"])
    bench.engine.observer = None
    bench.send(1, frame(B, A))
    assert (ears.take(), ears.gone) == ([], 0)
    assert len(bench.heard(2)) == 2
    assert watched(bench) == []


def watched(bench: Bench) -> list[str]:
    """Return the devices that take copies."""
    with bench.engine.kernel.namespace.inside():
        return [name for _, name in socket.if_nameindex() if name.startswith("w") and not name.endswith("x")]


def test_drops_are_told_with_the_reason_of_the_kernel(bench: Bench) -> None:
    """Rules drop what they dropped before, and bridges what they keep, each told once; nothing is forgotten by it."""
    bench.veth(1, security=Security(reject_forged_transmits=True, mac_limit=4), storm_control=StormControl(broadcast=5))
    bench.veth(2, isolated=True)
    bench.veth(3, isolated=True)
    bench.send(1, frame(B, A))
    ears = bench.engine.observer = Ears(1, 2)
    bench.send(1, frame(B, C), frame(B, A), frame(B, b"\x03" + A[1:]))
    assert ears.take() == [
        (1, IN, "FORGED_TRANSMIT", frame(B, C)),
        (1, IN, "", frame(B, A)),
        (2, OUT, "", frame(B, A)),
        (1, IN, "SOURCE_INVALID", frame(B, b"\x03" + A[1:])),
    ]
    bench.send(1, *[frame(ALL, A)] * 40)
    told = [(direction, reason) for slot, direction, reason, _ in ears.take() if slot == 1]
    assert 5 <= told.count((IN, "")) < 40 and told.count((IN, "STORM")) == 40 - told.count((IN, ""))
    assert bench.drops(1) == {"FORGED_TRANSMIT": 1, "STORM": told.count((IN, "STORM"))}
    bench.send(3, frame(ALL, D))
    bench.heard(1)
    ears.take()
    bench.send(2, frame(D, B))
    assert ears.take() == [(2, IN, "ISOLATED", frame(D, B))]
    outcomes = {(each.port[-2:], each.told.decision.drop) for each in bench.engine.records(SWITCH)}
    assert {("p1", None), ("p1", DropReason.STORM), ("p2", DropReason.ISOLATED)} <= outcomes


def test_who_watches_fills_no_bucket(bench: Bench) -> None:
    """A burst of storm control is one, whoever looks or changes guards meanwhile; another rate is another bucket."""
    bench.veth(1, storm_control=StormControl(broadcast=1, multicast=1))
    bench.veth(2)
    began, passed = time.monotonic(), 0
    for ears in (Ears(1), None) * 5:
        bench.send(1, frame(ALL, A))
        passed += len(bench.heard(2))
        bench.engine.observer = ears
        guards = Security(dhcp_guard=ears is None)
        bench.let(1, storm_control=StormControl(broadcast=1, multicast=1), security=guards)
    assert 1 <= passed <= 1 + 1 + int(time.monotonic() - began)  # one, and one for each second that began meanwhile
    assert bench.drops(1) == {"STORM": 10 - passed}
    bench.let(1, storm_control=StormControl(broadcast=100))
    bench.send(1, *[frame(ALL, A)] * 20)
    assert len(bench.heard(2)) == 20


def test_tags_are_told_as_they_are_at_the_port(bench: Bench) -> None:
    """A trunk's frames have the tag that they come and leave with, priority and provider's kind too; also later on."""
    bench.veth(1, 7, trunk=Trunk(((10, 11),), 7, provider_tags=True))
    bench.veth(2, 10)
    ears = bench.engine.observer = Ears(1, 2)
    provider = b"\x88\xa8" + tag(11, 3)[2:]
    bench.send(1, frame(ALL, A, tag(10, 5)), frame(ALL, A, provider), frame(ALL, A))
    told = ears.take()
    assert [each[:3] for each in told] == [
        *((1, IN, ""), (2, OUT, "")),
        *[(1, IN, "NO_DESTINATION")] * 2,  # nobody else is there
    ]
    assert [each[3][:20] for each in told] == [
        frame(ALL, A, tag(10, 5))[:20],
        frame(ALL, A)[:20],
        frame(ALL, A, provider)[:20],
        frame(ALL, A)[:20],
    ]
    bench.send(2, frame(A, B))
    assert ears.take() == [(2, IN, "", frame(A, B)), (1, OUT, "", frame(A, B, tag(10))[:64].ljust(64, b"\0"))]
    bench.send(1, frame(ALL, A, tag(12, 2)))
    bench.send(2, frame(A, B, tag(11)))
    assert ears.take() == [
        (1, IN, "VLAN_MISMATCH", frame(ALL, A, tag(12, 2))),
        (2, IN, "VLAN_MISMATCH", frame(A, B, tag(11))),
    ]
    needless = (tag(7, 2), tag(0, 6), provider[:2] + tag(7, 1)[2:])  # the native VLAN, by its number and by none
    bench.send(1, *(frame(ALL, A, each) for each in needless))
    assert ears.take() == [(1, IN, "NO_DESTINATION", frame(ALL, A, each)) for each in needless]
    bench.let(1, 11, trunk=Trunk(((10, 11),), 11))
    bench.send(1, frame(ALL, A))
    bench.send(1, frame(B, A, tag(10)))
    assert [each[3][:18] for each in ears.take()] == [frame(ALL, A)[:18], frame(B, A, tag(10))[:18], frame(B, A)[:18]]


def test_long_tcp_is_told_as_what_it_is(bench: Bench) -> None:
    """A frame whose rest is left to the device is seen with that, so a copy of it can be finished."""
    bench.veth(1)
    bench.veth(2)
    ears = bench.engine.observer = Ears(1)
    bench.ends[1].setsockopt(263, 15, 1)  # PACKET_VNET_HDR
    segment = long_tcp(4000)
    bench.ends[1].send(segment[0] + segment[1])
    bench.engine.listen_outside(0)
    ((slot, direction, _, told),) = ears.take()
    offload, _ = load_of(told)
    assert (slot, direction, told) == (1, IN, segment[1])
    assert offload is not None and (offload.segments, offload.segment_bytes) == (1, 1400)


def test_work_that_nobody_here_does_is_told_as_missed(bench: Bench) -> None:
    """UDP in segments, and TCP in pieces of a byte, which no mirror is to cut; the frame behind them is told."""
    bench.veth(1)
    bench.veth(2)
    ears = bench.engine.observer = Ears(1)
    bench.ends[1].setsockopt(263, 15, 1)  # PACKET_VNET_HDR
    header, tcp = long_tcp(4000)
    udp = tcp[:23] + b"\x11" + tcp[24:34] + struct.pack(">HHHH", 1, 2, 4020, 0) + bytes(4012)
    for sent in (
        struct.pack("<BBHHHH", 1, 5, 42, 1000, 34, 6) + udp,
        header[:4] + struct.pack("<H", 1) + header[6:] + tcp,
        bytes(10) + frame(B, A),
    ):
        bench.ends[1].send(sent)
    bench.engine.listen_outside(0)
    assert (ears.gone, ears.take()) == (2, [(1, IN, "", frame(B, A))])


def test_a_watch_that_cannot_be_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program nft nothing that comes in is copied: the event log says why; what leaves is seen."""
    bench.veth(1)
    bench.veth(2)
    monkeypatch.setenv("PATH", "/nowhere")
    ears = bench.engine.observer = Ears(1, 2)
    bench.send(1, frame(ALL, A))
    assert ears.take() == [(2, OUT, "", frame(ALL, A))]
    why = [dict(each.inputs)["why"] for each in bench.notices if each.event == "kernel.refused"]
    assert len(why) == 2 and all("rules" in each for each in why)
    monkeypatch.undo()
    bench.engine.observer = ears
    bench.let(1, isolated=True)
    bench.send(1, frame(ALL, A))
    assert ears.take() == [(1, IN, "", frame(ALL, A)), (2, OUT, "", frame(ALL, A))]


def test_who_watches_again_sees_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the rules could not be told that nobody did any more, and still name a device that is gone."""
    bench.veth(1)
    ears = bench.engine.observer = Ears(1)
    with monkeypatch.context() as changed:
        changed.setenv("PATH", "/nowhere")
        bench.engine.observer = None
    bench.engine.observer = ears
    bench.send(1, frame(ALL, A))
    assert ears.take() == [(1, IN, "NO_DESTINATION", frame(ALL, A))]


def test_vlans_count_what_the_kernel_switched(bench: Bench) -> None:
    """A trunk's frames by VLAN, tags included, an access port's as its VLAN's; nothing is lost when ports change."""
    bench.veth(1, 7, trunk=Trunk(((10, 11),), 7))
    bench.veth(2, 10)
    bench.port(3, 10)
    bench.send(1, *[frame(ALL, A, tag(10))] * 3, frame(ALL, A), frame(ALL, A, tag(12)))
    bench.send(2, frame(A, B), frame(A, B))
    trunk = {7: (1, 60, 0, 0), 10: (3, 180, 2, 128)}
    access = {10: (2, 120, 3 + 3, 2 * 168)}
    assert totals(bench) == {vlan: added(trunk.get(vlan), access.get(vlan)) for vlan in (7, 10)}
    bench.let(1, 10)  # an access port now
    bench.let(2, 11)
    before = totals(bench)
    bench.send(1, frame(ALL, A))
    bench.send(2, frame(ALL, B))
    assert totals(bench)[11] == (1, 60, 0, 0)
    assert totals(bench)[10] == added(before[10], (1, 60, 1, 60))
    bench.veths[1].close()
    bench.engine.remove_port(2, 0)
    bench.engine.remove_port(1, 0)
    assert totals(bench) == before | {11: (1, 60, 0, 0), 10: added(before[10], (1, 60, 1, 60))}


def totals(bench: Bench) -> dict[int, tuple[int, ...]]:
    """Return frames and bytes in, and frames and bytes out, of the VLANs."""
    return {
        vlan: (each.received_frames, each.received_bytes, each.sent_frames, each.sent_bytes)
        for vlan, each in bench.engine.vlan_counters(SWITCH)
    }


def added(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the sums."""
    return tuple(map(sum, zip(one or (0,) * 4, other or (0,) * 4, strict=True)))


def test_a_watched_device_may_go(bench: Bench) -> None:
    """Its link goes down and up, its interface is taken away, its port is removed; the engine comes to rest."""
    for slot in (1, 2, 3):
        bench.veth(slot)
    bench.engine.observer = ears = Ears(1, 2, 3)
    bench.engine.set_link(2, False, 0)
    bench.send(1, frame(ALL, A))
    assert [each[:2] for each in ears.take()] == [(1, IN), (3, OUT)]
    bench.engine.set_link(2, True, 0)
    bench.send(1, frame(ALL, A))
    assert sorted(each[:2] for each in ears.take()) == [(1, IN), (2, OUT), (3, OUT)]
    bench.network.run("ip link del dev2")
    bench.ends[3].send(frame(C, D))
    bench.engine.remove_port(3, 0)
    assert ears.take() == [(3, IN, "", frame(C, D)), (1, OUT, "", frame(C, D))]
    bench.veths.pop(3).close()
    bench.send(1, frame(ALL, A))
    assert [each[:2] for each in ears.take()] == [(1, IN)]
    assert select.select([bench.engine.descriptor() or 0], [], [], 0)[0] == []
    assert watched(bench) == ["w1", "w2"]
    bench.veths.pop(2).close()
    assert watched(bench) == ["w1"]
    bench.engine.observer = None
    bench.engine.observer = Ears(1, 2)
    assert watched(bench) == ["w4"]


def test_frames_that_find_no_room_are_told_of(bench: Bench) -> None:
    """The sockets hold some megabytes; what comes when they are full is counted as missed, not silently lost."""
    bench.veth(1)
    bench.veth(2)
    ears = bench.engine.observer = Ears(1)
    for _ in range(SOME):
        bench.ends[1].send(frame(B, A, size=1500))
    told = -1
    while len(ears.told) > told:
        told = len(ears.told)
        bench.engine.listen_outside(0)
    assert ears.gone > 0
    assert len(ears.told) + ears.gone == SOME
