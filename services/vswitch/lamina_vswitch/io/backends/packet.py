"""A backend at an interface of this machine: a packet socket with a ring for what comes in, others to send.

A ring to send was measured for the hardware's wires and is not faster, as the kernel copies either way (ADR 0028).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.backend.definition import BackendState, Packet
from lamina_vswitch.domain.backend.vnet import to_kernel
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.io.backends.bypass import Bypass
from lamina_vswitch.io.backends.junction import Junction
from lamina_vswitch.io.backends.packet_slots import SOL_PACKET, SlotRing
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.backends.refusals import refusal
from lamina_vswitch.io.backends.transmit_queue import MOST_AT_ONCE, TransmitQueue

if TYPE_CHECKING:
    from lamina_vswitch.plane.kernel_ports import PacketLane, Wire
    from lamina_vswitch.plane.switching import Plane

_ETH_P_ALL = 3
_ADD_MEMBERSHIP, _VNET_HEADER, _IGNORE_OUTGOING = 1, 15, 23
_MR_PROMISC = 1
_ATTACH_BPF = 50
_LEARNED_OF_BURST = 4
"""Frames of a burst that the bypass learns from."""
_MOST_FRAMES, _BUSY = 4096, 32
"""Frames that one turn of the loop switches; while a burst of so many is, others come."""
_TELL_S, _MANY = 0.01, 16
"""How often the kernel is asked what it lost, and after how many frames at a turn, which may have filled the ring."""
_OVER = (errno.ENODEV, errno.ENXIO, errno.EBADF)


class PacketBackend:
    """What comes in by an interface enters the switch; what leaves by the port leaves by the interface."""

    takes: Takes | None = Takes(checksum=True, tcp4=True, tcp6=True)

    def __init__(self, end: PortEnd, wanted: Packet, capacity: int, bypass: Bypass | None = None) -> None:
        """Open it; with a bypass, the kernel hands known frames on.

        A bypass that the kernel does not let this interface have is `bypass_failure`.
        """
        self._failure = self._trouble = ""
        self._end = end
        what = f"interface {wanted.interface}"
        with contextlib.ExitStack() as opened:
            try:
                self._in, self._out, self._bare = (opened.enter_context(_raw_socket()) for _ in range(3))
                number = _index(wanted.interface)
                self._junction, self.bypass_failure = _joined(bypass, end, number, self._in)
                if self._junction is not None:
                    opened.callback(self._junction.close)
                self._ring = _opened(self._in, (self._out, self._bare), wanted, number, end.mtu_bytes())
            except OSError as error:
                raise refusal(what, error, "CAP_NET_RAW") from error
            opened.pop_all()
        self._transmit_queue = TransmitQueue(self._out.fileno(), capacity, self._send, end.lost, waiting=self._waits)
        self._telling: asyncio.TimerHandle | None = None
        self._many = min(self._ring.slots // 2, _MANY)
        self._fast: tuple[Plane, PacketLane, Wire] | None = None

    def start(self) -> None:
        """Begin to bring frames."""
        asyncio.get_running_loop().add_reader(self._in.fileno(), self._readable)
        if self._junction is not None:
            self._junction.start()

    @property
    def state(self) -> BackendState:
        """Open, for as long as the interface is there; it may be down."""
        return BackendState.FAILED if self._failure or self._is_gone() else BackendState.OPEN

    @property
    def detail(self) -> str:
        """What happened to the interface."""
        return self._failure or ("the interface went away" if self._is_gone() else self._trouble)

    @property
    def quick(self) -> bool:
        """Whether it goes by the plane."""
        return self._fast is not None

    def quicken(self, plane: Plane) -> None:
        """Go on by the plane, which is loaded now."""
        from lamina_vswitch.plane.kernel_ports import PacketLane, Wire

        ring, wire = self._ring, Wire(self._out.fileno(), is_socket=True, bare_file=self._bare.fileno())
        lane = PacketLane(self._in.fileno(), ring.memory, ring.slot_bytes, ring.slots, ring.next)
        self._fast = plane, lane, wire
        self._transmit_queue.use(wire)
        self._end.connect(plane, wire)

    def close(self) -> None:
        """Close the sockets and give the ring back. Idempotent."""
        if self._in.fileno() < 0:
            return
        if self._telling is not None:
            self._telling.cancel()
        self._tell()
        if self._junction is not None:
            self._junction.close()
        self._end.close()
        asyncio.get_running_loop().remove_reader(self._in.fileno())
        self._transmit_queue.withdraw()
        if self._fast is not None:
            plane, lane, wire = self._fast
            self._end.disconnect(plane, wire)
            lane.close()
        self._ring.close()
        self._in.close()
        self._out.close()
        self._bare.close()

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Send frames by the interface."""
        return self._transmit_queue.put_all(frames)

    def withdraw(self) -> list[bytes]:
        """Return what waits."""
        return self._transmit_queue.withdraw()

    def link_changed(self, up: bool) -> None:
        """Do nothing: the interface's carrier is its cable's."""

    def removed(self) -> None:
        """Count nothing any more at a port that is gone; who keeps the backends closes it."""
        self._end.close()

    def _send(self, frame: bytes) -> None:
        self._out.sendmsg((to_kernel(frame), frame))

    def _readable(self) -> None:
        if self._junction is not None:
            self._junction.begin()
        if self._fast is None:
            frames, cut, has_lost = self._ring.take(MOST_AT_ONCE)
            found, error = len(frames), self._ring.error
            try:
                self._end.transmit(frames)
                self._learn(self._ring.walked, frames[:_LEARNED_OF_BURST])
            finally:
                self._dealt_with(self._ring.walked)
        else:
            found, cut, has_lost, error = self._hurry(*self._fast)
        if error or not (found or cut):
            self._note_error(error or self._in.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        self._end.turn_away(DropReason.OVERSIZE, [b""] * cut)
        if has_lost and self._junction is not None:
            self._junction.drain()
            self._tell()
        elif has_lost or found + cut >= self._many:
            self._tell_lost()

    def _hurry(self, plane: Plane, lane: PacketLane, wire: Wire) -> tuple[int, int, bool, int]:
        """Switch some bursts; return how many frames they had, how many were cut, whether some were lost, an error."""
        found, cut, has_lost, error, mtu_bytes = 0, 0, False, 0, self._end.mtu_bytes()
        while found < _MOST_FRAMES:
            burst = lane.next(mtu_bytes)
            cut, has_lost, error = cut + lane.cut, has_lost or lane.has_lost, error or lane.error
            walked = lane.walked
            try:
                self._end.switch(plane, burst)
                self._learn(walked, map(burst.frame, _some_of(len(burst))))
            finally:
                lane.end()  # whatever happened: else the same frames come again for ever
                self._dealt_with(walked)
            found += len(burst)
            if len(burst) < min(_BUSY, lane.most):
                break
        return found, cut, has_lost, error

    def _tell_lost(self) -> None:
        """Count frames for which the ring had no room, a little later: asking costs a call of the kernel."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_TELL_S, self._tell)

    def _tell(self) -> None:
        self._telling = None
        lost = self._ring.lost()
        if self._junction is not None:
            self._junction.dealt_with(lost)
            lost += self._junction.lost()
        self._end.turn_away(DropReason.QUEUE_FULL, [b""] * lost)

    def _learn(self, frames: int, heads: Iterable[bytes]) -> None:
        """Tell the bypass what some of the frames were that were switched."""
        if self._junction is not None and frames:
            self._junction.learn(heads, self._end.now_ns())

    def _dealt_with(self, frames: int) -> None:
        """Tell the bypass that some frames were switched: gates that are not told of one stay closed."""
        if self._junction is not None and frames:
            drained = self._junction.drains
            self._junction.dealt_with(frames)
            if drained:
                self._tell()
                self._tell_lost()  # what another processor lost meanwhile

    def _waits(self, waits: bool) -> None:
        if self._junction is not None:
            self._junction.set_waits(waits)

    def _note_error(self, number: int) -> None:
        """Take an error of the socket, which would wake the loop for ever: its interface went down, or is gone."""
        if number == errno.ENETDOWN:
            self._trouble = "the interface went down"
        elif number:
            self._trouble = f"the interface failed: {errno.errorcode.get(number, number)}"
        if number in _OVER:
            self._failure = self._trouble
            asyncio.get_running_loop().remove_reader(self._in.fileno())

    def _is_gone(self) -> bool:
        """Ask the kernel: that an interface goes is told as that it went down, and no more."""
        return self._in.fileno() >= 0 and not self._in.getsockname()[0]


def _some_of(frames: int) -> Iterable[int]:
    """Return the numbers of a few frames of a burst, spread over it."""
    return range(0, frames, -(-frames // _LEARNED_OF_BURST) or 1)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:  # it has no number of its own
        missing = OSError(errno.ENODEV, "no interface has this name")
        raise refusal(f"interface {interface}", missing) from error


def _joined(bypass: Bypass | None, end: PortEnd, number: int, taker: socket.socket) -> tuple[Junction | None, str]:
    """Return the junction of an interface, whose filter is at the socket then, or why there is none."""
    if bypass is None:
        return None, ""
    try:
        junction = Junction(bypass, end.slot, bypass.join(end.slot, number, end.now_ns))
    except LaminaError as error:
        return None, error.message
    except OSError as error:
        return None, f"The kernel did not let the interface take part: {error.strerror}."
    try:
        taker.setsockopt(socket.SOL_SOCKET, _ATTACH_BPF, junction.filter)
    except OSError as error:
        junction.close()
        return None, f"The kernel did not attach a filter to a packet socket: {error.strerror}."
    return junction, ""


def _raw_socket() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)


def _opened(
    end: socket.socket, outs: tuple[socket.socket, socket.socket], wanted: Packet, number: int, mtu_bytes: int
) -> SlotRing:
    """Return the ring of a socket, once it and those to send are at the interface; the first of these takes headers."""
    if wanted.promiscuous:
        end.setsockopt(SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("=iHH8s", number, _MR_PROMISC, 0, b""))
    for each in (end, outs[0]):
        each.setsockopt(SOL_PACKET, _VNET_HEADER, 1)
    end.setsockopt(SOL_PACKET, _IGNORE_OUTGOING, 1)
    ring = SlotRing(end, wanted.ring_bytes, mtu_bytes)
    try:
        for each in outs:
            each.bind((wanted.interface, 0))
        end.bind((wanted.interface, _ETH_P_ALL))
    except BaseException:
        ring.close()
        raise
    return ring
