"""Our stack on one side of a TAP device and the kernel's on the other, with a wire between them that a seed spoils."""

from __future__ import annotations

import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.linux.hardware.network import Network

from lamina_net.packets.checksum import updated
from lamina_net.stack import Stack, StackConfig
from lamina_net.tcp.interface import Endpoint, Event, Handle, Readiness, Refused

KERNEL, OURS = "10.9.0.1", "10.9.0.2"
KERNEL_ADDRESS, OUR_ADDRESS = 0x0A090001, 0x0A090002
DEADLINE_S = 60.0

_TUNSETIFF, _TAP_WITHOUT_HEADER = 0x400454CA, 0x1002
_TURN_S = 0.001


class LinuxPeer:
    """A stack `eth0` at a TAP device `tap0` of the kernel in a namespace; `loss` and `reorder` are shares of frames.

    `mark` is the share of the packets that may be marked for congestion which are; `marked` counts those each way.
    """

    def __init__(
        self,
        network: Network,
        *,
        loss: float = 0,
        reorder: float = 0,
        mark: float = 0,
        config: StackConfig | None = None,
    ) -> None:
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            pytest.skip("there is no /dev/net/tun")
        self._network = network
        self._reorder, self._rng = reorder, random.Random(9)
        self._held: list[Callable[[], None]] = []
        self.loss = loss
        self._mark = mark
        self.marked = {"to us": 0, "to the kernel": 0}
        self._tap = network.do(_tap)
        self.stack = Stack(b"linux", config)
        self.stack.internet.add_interface("eth0", bytes.fromhex("020000000002"), 1500)
        assert self.stack.internet.add_address("eth0", OUR_ADDRESS, 24)
        self.events: list[Event] = []
        self.spoilt = 0
        for command in ("ip link set tap0 up", f"ip addr add {KERNEL}/24 dev tap0"):
            network.run(command)

    def close(self) -> None:
        """Remove the device."""
        os.close(self._tap)

    def now(self) -> int:
        """Return the machine's time."""
        return time.monotonic_ns()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Carry frames until something holds."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"still not: {what}; last events {self.events[-4:]}"
            self.turn()

    def turn(self) -> None:
        """Carry frames both ways, waiting up to a millisecond for some, and let timers run."""
        self._send()
        select.select([self._tap], [], [], _TURN_S)
        for _ in range(64):
            try:
                frame = os.read(self._tap, 2048)
            except BlockingIOError:
                break
            frame = self._congested(frame, "to us")
            self._carry(lambda frame=frame: self.stack.frame("eth0", frame, self.now()))  # type: ignore[misc]
        wakeup = self.stack.next_wakeup_ns
        if wakeup is not None and wakeup <= self.now():
            self.stack.timer(self.now())
        if self._held:
            self._held.pop(0)()
        self._send()

    def _send(self) -> None:
        frames, events = self.stack.drain()
        self.events += events
        for _, frame in frames:
            frame = self._congested(frame, "to the kernel")
            self._carry(lambda frame=frame: os.write(self._tap, frame))  # type: ignore[misc]

    def _congested(self, frame: bytes, way: str) -> bytes:
        """Return a frame, perhaps marked, as a router with a long queue does it."""
        if not self._mark or frame[12:14] != b"\x08\x00" or not frame[15] & 3 or self._rng.random() >= self._mark:
            return frame
        self.marked[way] += 1
        word, new = frame[14] << 8 | frame[15], frame[14] << 8 | frame[15] | 3
        total = updated(frame[24] << 8 | frame[25], word, new)
        return frame[:15] + bytes((new & 0xFF,)) + frame[16:24] + total.to_bytes(2, "big") + frame[26:]

    def _carry(self, delivered: Callable[[], object]) -> None:
        chance = self._rng.random()
        if chance < self.loss + self._reorder:
            self.spoilt += 1
        if chance < self.loss:
            return
        if chance < self.loss + self._reorder:
            self._held.append(lambda: (delivered(), None)[1])
        else:
            delivered()

    def readiness(self, handle: Handle) -> Readiness:
        """Return what our socket would find."""
        found = self.stack.sockets.poll(handle)
        assert isinstance(found, Readiness)
        return found

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a program on the kernel's side."""
        return self._network.do(lambda: subprocess.Popen(command, text=True, stdout=subprocess.PIPE))

    def kernel_socket(self) -> socket.socket:
        """Return a TCP socket of the kernel that does not block."""
        made = self._network.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.setblocking(False)
        return made

    def kernel_connects(self, port: int = 80) -> tuple[Handle, socket.socket]:
        """Return both ends of a connection that the kernel opened."""
        listener = self.open()
        assert self.stack.sockets.bind(listener, Endpoint(0, port)) is None
        assert self.stack.sockets.listen(listener, 8) is None
        theirs = self.kernel_socket()
        assert theirs.connect_ex((OURS, port)) != 0
        self.until(lambda: self.readiness(listener).readable, "our listener has a connection")
        ours = self.stack.sockets.accept(listener, self.now())
        assert not isinstance(ours, Refused)
        self.until(lambda: select.select([], [theirs], [], 0)[1], "the kernel is connected")
        return ours, theirs

    def we_connect(self, port: int = 8080) -> tuple[Handle, socket.socket]:
        """Return both ends of a connection that we opened."""
        with self.kernel_socket() as listener:
            listener.bind((KERNEL, port))
            listener.listen(8)
            ours = self.open()
            assert self.stack.sockets.connect(ours, Endpoint(KERNEL_ADDRESS, port), self.now()) is None
            self.until(lambda: select.select([listener], [], [], 0)[0], "the kernel has a connection")
            theirs, _ = listener.accept()
        theirs.setblocking(False)
        self.until(lambda: self.readiness(ours).writable, "we are connected")
        return ours, theirs

    def open(self) -> Handle:
        """Return a socket of ours."""
        made = self.stack.sockets.open_tcp()
        assert not isinstance(made, Refused)
        return made


class Transfer:
    """Bytes each way over one connection; each side closes its half when it has sent all."""

    def __init__(self, peer: LinuxPeer, ours: Handle, theirs: socket.socket, up: bytes, down: bytes) -> None:
        self._peer, self._ours, self._theirs = peer, ours, theirs
        self._up, self._down = memoryview(up), memoryview(down)
        self.got_up, self.got_down = bytearray(), bytearray()
        self._ends = {"we sent": False, "kernel sent": False, "we read": False, "kernel read": False}

    def run(self) -> None:
        """Carry everything to its end."""
        self._peer.until(self._move, "both streams are at their ends")

    def _move(self) -> bool:
        self._we_send()
        self._we_read()
        self._kernel_sends()
        self._kernel_reads()
        return all(self._ends.values())

    def _we_send(self) -> None:
        sockets, now_ns = self._peer.stack.sockets, self._peer.now()
        while self._down and not isinstance(
            taken := sockets.send(self._ours, bytes(self._down[:65536]), now_ns), Refused
        ):
            self._down = self._down[taken:]
        if not self._down and not self._ends["we sent"]:
            assert sockets.shutdown(self._ours, now_ns) is None
            self._ends["we sent"] = True

    def _we_read(self) -> None:
        sockets = self._peer.stack.sockets
        while not self._ends["we read"]:
            piece = sockets.recv(self._ours, 1 << 18, self._peer.now())
            if isinstance(piece, Refused):
                return
            self._ends["we read"] = not piece
            self.got_up += piece

    def _kernel_sends(self) -> None:
        try:
            while self._up:
                self._up = self._up[self._theirs.send(self._up[:65536]) :]
        except BlockingIOError:
            return
        if not self._ends["kernel sent"]:
            self._theirs.shutdown(socket.SHUT_WR)
            self._ends["kernel sent"] = True

    def _kernel_reads(self) -> None:
        try:
            while not self._ends["kernel read"]:
                piece = self._theirs.recv(1 << 18)
                self._ends["kernel read"] = not piece
                self.got_down += piece
        except BlockingIOError:
            return


def _tap() -> int:
    """Make a TAP device whose kernel says nothing of its own; it goes with the descriptor."""
    quiet = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    if quiet.exists():
        quiet.write_text("1")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _TAP_WITHOUT_HEADER))
    return device
