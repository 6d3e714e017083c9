"""The TCP of `lamina_net` against that of Linux where it is quiet, stuck, marked or at cross purposes.

The wire is ours. With LAMINA_LONG=1 in the environment the bad and the marked wire carry 50 times as much; by hand.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.linux.hardware.network import Network, needs_network
from tests.linux.vswitch.linux_peer import KERNEL, KERNEL_ADDRESS, OURS, LinuxPeer, Transfer

from lamina_net.stack import StackConfig
from lamina_net.tcp.config import MILLISECOND, Ecn, SocketOptions, TcpConfig
from lamina_net.tcp.interface import Endpoint, Errno, EventKind, Handle, Refused

SIZE = 3_000_000 if os.environ.get("LAMINA_LONG") else 60_000
QUICK = StackConfig(
    tcp=TcpConfig(keepalive_idle_ns=600 * MILLISECOND, keepalive_interval_ns=300 * MILLISECOND, keepalive_probes=3)
)
"""Linux answers what lies outside of its window twice a second at most (tcp_invalid_ratelimit)."""
_ECN_ASK = StackConfig(tcp=TcpConfig(ecn=Ecn.ASK))
_OPTION_ECN, _OPTION_ECN_SEEN = 8, 16
"""Of `tcpi_options`. Source: Linux, include/uapi/linux/tcp.h."""


@pytest.fixture
def network() -> Iterator[Network]:
    """Returns a namespace of its own."""
    needs_network()
    made = Network()
    yield made
    made.close()


@pytest.fixture
def made(network: Network) -> Iterator[Callable[..., LinuxPeer]]:
    """Returns what makes a peer; it goes with the test."""
    peers: list[LinuxPeer] = []

    def make(**options: object) -> LinuxPeer:
        peers.append(LinuxPeer(network, **options))  # type: ignore[arg-type]
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


def after(peer: LinuxPeer, seconds: float) -> None:
    """Carry frames for a while."""
    end = time.monotonic() + seconds
    peer.until(lambda: time.monotonic() >= end, "time passes")


def test_the_kernel_asks_whether_we_are_there(made: Callable[..., LinuxPeer]) -> None:
    """Its keepalive probes are answered for as long as the wire holds, and the connection ends when it does not."""
    peer = made()
    ours, theirs = peer.kernel_connects()
    with theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)):
            theirs.setsockopt(socket.IPPROTO_TCP, option, value)
        before = peer.stack.tcp.counters.received
        after(peer, 3.6)  # unanswered, it would be over after 3 s
        assert peer.stack.tcp.counters.received >= before + 2
        assert peer.readiness(ours).error is None
        assert theirs.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        peer.loss = 1.0
        peer.until(lambda: select.select([theirs], [], [], 0)[0], "the kernel gives up")
        with pytest.raises(TimeoutError):
            theirs.recv(1)


def test_we_ask_whether_the_kernel_is_there(made: Callable[..., LinuxPeer]) -> None:
    """It answers our probes, which carry nothing; once nothing passes any more we give up after three."""
    peer = made(config=QUICK)
    ours, theirs = peer.we_connect()
    assert peer.stack.sockets.set_options(ours, SocketOptions(keepalive=True), peer.now()) is None
    with theirs:
        before = peer.stack.tcp.counters.received
        after(peer, 2.0)  # unanswered, it would be over after 1.5 s
        assert peer.stack.tcp.counters.received >= before + 2
        assert peer.readiness(ours).error is None
        peer.loss = 1.0
        peer.until(lambda: peer.readiness(ours).error is Errno.TIMEDOUT, "we give up")


def test_urgent_data_pass_both_ways(made: Callable[..., LinuxPeer]) -> None:
    """The kernel's urgent byte is told of and stays in the stream; ours is what the kernel has out of band."""
    peer = made()
    ours, theirs = peer.kernel_connects()
    sockets = peer.stack.sockets
    with theirs:
        theirs.send(b"normal")
        theirs.send(b"!", socket.MSG_OOB)
        peer.until(lambda: any(event.kind is EventKind.URGENT for event in peer.events), "we hear of it")
        heard = bytearray()

        def read() -> bool:
            piece = sockets.recv(ours, 100, peer.now())
            heard.extend(b"" if isinstance(piece, Refused) else piece)
            return len(heard) == 7

        peer.until(read, "we read it in its place")
        assert heard == b"normal!"
        assert sockets.send(ours, b"calm", peer.now()) == 4
        assert sockets.send(ours, b"?", peer.now(), urgent=True) == 1
        assert sockets.send(ours, b"calm again", peer.now()) == 10
        peer.until(lambda: select.select([], [], [theirs], 0)[2], "the kernel hears of ours")
        assert theirs.recv(1, socket.MSG_OOB) == b"?"
        got = bytearray()

        def kernel_read() -> bool:
            if select.select([theirs], [], [], 0)[0]:
                got.extend(theirs.recv(100))
            return len(got) == 14

        peer.until(kernel_read, "the kernel reads what is around it")
        assert got == b"calmcalm again"


def test_a_kernel_that_does_not_read_closes_its_window(made: Callable[..., LinuxPeer]) -> None:
    """We send until it takes no more, ask whether it does again, and all arrives once it reads."""
    peer = made()
    ours, theirs = peer.kernel_connects()
    data = random.Random(3).randbytes(1_000_000)
    with theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        given = 0

        def fill() -> bool:
            nonlocal given
            taken = peer.stack.sockets.send(ours, data[given : given + 100_000], peer.now())
            given += 0 if isinstance(taken, Refused) else taken
            return isinstance(taken, Refused)

        peer.until(fill, "our buffer is full")
        after(peer, 1.0)
        before = peer.stack.tcp.counters.sent
        peer.until(lambda: peer.stack.tcp.counters.sent > before, "a probe goes")
        after(peer, 0.5)
        assert peer.stack.tcp.counters.sent - before <= 8, "probes, and nothing but those"
        got = bytearray()

        def read() -> bool:
            fill()
            while select.select([theirs], [], [], 0)[0] and (piece := theirs.recv(1 << 16)):
                got.extend(piece)
            return len(got) == len(data)

        peer.until(read, "it has read everything")
        assert got == data


def test_we_who_do_not_read_close_our_window(made: Callable[..., LinuxPeer]) -> None:
    """The kernel sends until we take no more, its probes are answered, and all arrives once we read."""
    peer = made(config=StackConfig(tcp=TcpConfig(buffer=32_768, max_buffer=32_768)))
    ours, theirs = peer.we_connect()
    data = random.Random(4).randbytes(400_000)
    with theirs:
        given = 0

        def fill() -> bool:
            nonlocal given
            try:
                given += theirs.send(data[given : given + 65_536])
            except BlockingIOError:
                return True
            return given == len(data)

        peer.until(fill, "the kernel has given what it takes")
        after(peer, 1.0)
        held = peer.stack.sockets.recv(ours, 1 << 20, peer.now())
        assert not isinstance(held, Refused) and 16_000 < len(held) <= 32_768
        got = bytearray(held)

        def read() -> bool:
            fill() if given < len(data) else None
            piece = peer.stack.sockets.recv(ours, 1 << 20, peer.now())
            got.extend(b"" if isinstance(piece, Refused) else piece)
            return len(got) == len(data)

        peer.until(read, "we have read everything")
        assert got == data


@pytest.mark.parametrize("we_open", [False, True], ids=["kernel_connects", "we_connect"])
def test_a_tenth_lost_and_a_tenth_late(made: Callable[..., LinuxPeer], we_open: bool) -> None:
    """Over a wire that loses 10 % and reorders 10 % both streams arrive whole."""
    peer = made(loss=0.1, reorder=0.1)
    ours, theirs = peer.we_connect() if we_open else peer.kernel_connects()
    up, down = random.Random(5).randbytes(SIZE), random.Random(6).randbytes(SIZE)
    with theirs:
        transfer = Transfer(peer, ours, theirs, up, down)
        transfer.run()
    assert transfer.got_up == up and transfer.got_down == down
    assert peer.spoilt > 5


@pytest.mark.parametrize("we_open", [False, True], ids=["kernel_asks", "we_ask"])
def test_a_congested_path_marks_packets(network: Network, made: Callable[..., LinuxPeer], we_open: bool) -> None:
    """Both agree on ECN whoever asks; marks make both slow down, nothing is lost and nothing goes twice."""
    network.do(lambda: Path("/proc/sys/net/ipv4/tcp_ecn").write_text("1"))
    peer = made(mark=0.05, config=_ECN_ASK if we_open else None)
    ours, theirs = peer.we_connect() if we_open else peer.kernel_connects()
    up, down = random.Random(7).randbytes(10 * SIZE), random.Random(8).randbytes(10 * SIZE)
    with theirs:
        transfer = Transfer(peer, ours, theirs, up, down)
        transfer.run()
        options = theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[5]
    assert transfer.got_up == up and transfer.got_down == down
    assert options & _OPTION_ECN and options & _OPTION_ECN_SEEN
    repairs = peer.stack.tcp.repairs
    assert repairs.marks == peer.marked["to us"] > 0
    assert peer.marked["to the kernel"] > 0 and repairs.slowed > 0
    assert repairs.timeouts == 0


def test_both_close_at_once(made: Callable[..., LinuxPeer]) -> None:
    """Two FINs cross on the wire; each side reads the other's end, and the connection is over on both."""
    peer = made()
    ours, theirs = peer.kernel_connects()
    with theirs:
        assert peer.stack.sockets.shutdown(ours, peer.now()) is None
        theirs.shutdown(socket.SHUT_WR)  # before anything was carried
        peer.until(lambda: peer.readiness(ours).hangup, "it is over here")
        peer.until(lambda: select.select([theirs], [], [], 0)[0], "the kernel has our end")
        assert theirs.recv(1) == b""
        assert peer.stack.sockets.recv(ours, 1, peer.now()) == b""
        after(peer, 0.3)
        assert _state(theirs) in (7, 11, 6), "TIME-WAIT, or closed"


def test_both_open_at_once(made: Callable[..., LinuxPeer]) -> None:
    """Two SYNs cross on the wire and make one connection, over which bytes pass."""
    peer = made()
    ours = peer.open()
    after(peer, 0.1)
    assert peer.stack.sockets.bind(ours, Endpoint(0, 6000)) is None
    assert peer.stack.sockets.connect(ours, Endpoint(KERNEL_ADDRESS, 5000), peer.now()) is None
    with peer.kernel_socket() as theirs:
        theirs.bind((KERNEL, 5000))
        assert theirs.connect_ex((OURS, 6000)) != 0
        peer.until(lambda: peer.readiness(ours).writable, "we are connected")
        peer.until(lambda: select.select([], [theirs], [], 0)[1], "the kernel is connected")
        assert theirs.send(b"hello") == 5
        peer.until(lambda: _heard(peer, ours) == b"hello", "we hear it")


def _heard(peer: LinuxPeer, ours: Handle) -> bytes:
    piece = peer.stack.sockets.recv(ours, 100, peer.now())
    return b"" if isinstance(piece, Refused) else piece


def _state(theirs: socket.socket) -> int:
    return int(struct.unpack_from("B", theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))[0])
