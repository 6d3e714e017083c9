"""The TCP of `lamina_net` against that of Linux, over a TAP device: whole streams, half closes, resets, a bad wire."""

from __future__ import annotations

import errno
import random
import select
import shutil
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from tests.linux.hardware.network import Network, needs_network
from tests.linux.vswitch.linux_peer import KERNEL_ADDRESS, OURS, LinuxPeer, Transfer

from lamina_net.stack import StackConfig
from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Errno, Handle, Refused

UP, DOWN = random.Random(1).randbytes(1_500_000), random.Random(2).randbytes(1_500_000)
NO_OPTIONS = StackConfig(tcp=TcpConfig(timestamps=False, selective_ack=False, window_scaling=False))

Join = Callable[[LinuxPeer], tuple[Handle, socket.socket]]


@pytest.fixture
def made() -> Iterator[Callable[..., LinuxPeer]]:
    """Returns what makes a peer; it goes with the test."""
    needs_network()
    network, peers = Network(), []

    def make(**options: object) -> LinuxPeer:
        peers.append(LinuxPeer(network, **options))  # type: ignore[arg-type]
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
    network.close()


@pytest.fixture(params=[LinuxPeer.kernel_connects, LinuxPeer.we_connect], ids=["kernel_connects", "we_connect"])
def join(request: pytest.FixtureRequest) -> Join:
    """Returns what makes a connection, opened by either side."""
    chosen: Join = request.param
    return chosen


@pytest.mark.parametrize(
    ("loss", "reorder", "config", "size"),
    [
        (0, 0, None, 1_500_000),
        (0.02, 0.05, None, 300_000),
        (0, 0, NO_OPTIONS, 500_000),
        (0.02, 0.02, NO_OPTIONS, 100_000),
    ],
    ids=["good_wire", "bad_wire", "no_options", "no_options_bad_wire"],
)
def test_streams_arrive_whole_both_ways(
    made: Callable[..., LinuxPeer], join: Join, loss: float, reorder: float, config: StackConfig | None, size: int
) -> None:
    """Both sides send at once and close their halves: every byte arrives, in order, and both see the end."""
    peer = made(loss=loss, reorder=reorder, config=config)
    ours, theirs = join(peer)
    with theirs:
        transfer = Transfer(peer, ours, theirs, UP[:size], DOWN[:size])
        transfer.run()
    assert transfer.got_up == UP[:size] and transfer.got_down == DOWN[:size]
    assert bool(peer.spoilt) == bool(loss)


def test_a_half_that_is_closed_leaves_the_other(made: Callable[..., LinuxPeer], join: Join) -> None:
    """The kernel closes its half first; what we send after we have read its end still arrives, and its end."""
    peer = made()
    ours, theirs = join(peer)
    sockets = peer.stack.sockets
    with theirs:
        theirs.send(b"last words")
        theirs.shutdown(socket.SHUT_WR)
        heard = bytearray()

        def ended() -> bool:
            piece = sockets.recv(ours, 100, peer.now())
            heard.extend(b"" if isinstance(piece, Refused) else piece)
            return piece == b""

        peer.until(ended, "we read the kernel's end")
        assert heard == b"last words"
        assert sockets.send(ours, b"answer", peer.now()) == 6
        assert sockets.shutdown(ours, peer.now()) is None
        peer.until(lambda: _readable(theirs), "the answer arrived")
        assert theirs.recv(100) == b"answer"
        peer.until(lambda: _readable(theirs), "the kernel reads our end")
        assert theirs.recv(100) == b""


def test_resets_are_believed_on_both_sides(made: Callable[..., LinuxPeer], join: Join) -> None:
    """A kernel's socket that lingers for no time resets ours; ours that is aborted resets the kernel's."""
    peer = made()
    ours, theirs = join(peer)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    peer.until(lambda: peer.readiness(ours).error is Errno.CONNRESET, "we are reset")
    ours, theirs = peer.kernel_connects(81)
    assert peer.stack.sockets.abort(ours, peer.now()) is None
    with theirs:
        peer.until(lambda: _readable(theirs), "the kernel's socket is over")
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)


def test_the_kernel_pings_our_stack(made: Callable[..., LinuxPeer]) -> None:
    """Echo requests that it sends, in fragments too, are answered as it wants them."""
    if shutil.which("ping") is None:
        pytest.skip("there is no program ping")
    peer = made()
    for size in ("56", "3000", "20000"):
        command = ["ping", "-c", "3", "-i", "0.05", "-W", "5", "-s", size, OURS]
        with peer.start(command) as pinging:
            peer.until(lambda: pinging.poll() is not None, "ping is over")
            said, _ = pinging.communicate()
        assert "3 packets transmitted, 3 received" in said, said


def test_closed_ports_refuse_on_both_sides(made: Callable[..., LinuxPeer]) -> None:
    """A SYN to a port where nobody listens is answered by a reset that the other side takes as its refusal."""
    peer = made()
    ours = peer.open()
    assert peer.stack.sockets.connect(ours, Endpoint(KERNEL_ADDRESS, 9), peer.now()) is None
    peer.until(lambda: peer.readiness(ours).error is Errno.CONNREFUSED, "the kernel refuses us")
    with peer.kernel_socket() as theirs:
        theirs.connect_ex((OURS, 9))
        found: list[int] = []

        def refused() -> bool:
            found.append(theirs.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            return found[-1] != 0

        peer.until(refused, "we refuse the kernel")
        assert found[-1] == errno.ECONNREFUSED


def _readable(theirs: socket.socket) -> bool:
    return bool(select.select([theirs], [], [], 0)[0])
