"""A backend at a TAP device: what the kernel sends by it enters the switch, what leaves by the port the kernel gets.

Partial checksums and long TCP pass both ways as they are: the kernel tells of them before each frame, and is told.

Source: Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h of Linux 6.18.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lamina_vswitch.domain.backend.definition import BackendState, Tap
from lamina_vswitch.domain.backend.vnet import LAYOUT, from_kernel, to_kernel
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.domain.offload.flow_hash import flow_hash
from lamina_vswitch.io.backends.backend import sorted_out
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.backends.refusals import lacking, refusal
from lamina_vswitch.io.backends.transmit_queue import MOST_AT_ONCE, TransmitQueue

if TYPE_CHECKING:
    from lamina_vswitch.plane.kernel_ports import TapLane, Wire
    from lamina_vswitch.plane.switching import Plane

_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETCARRIER = 0x400454CA, 0x400454D0, 0x400454E2
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 2, 0x100, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 1, 2, 4
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU, _IFF_UP = 0x8913, 0x8914, 0x8922, 1
_LONGEST = LAYOUT.size + 65535 + 18
_OVER = (errno.EBADFD, errno.ENODEV, errno.ENXIO, errno.EBADF)


class TapBackend:
    """A TAP device. One that this made goes when it is closed; each queue is a descriptor."""

    takes: Takes | None = Takes(checksum=True, tcp4=True, tcp6=True)

    def __init__(self, end: PortEnd, wanted: Tap, capacity: int) -> None:
        self.state, self.detail = BackendState.OPEN, ""
        self._end = end
        self._files: list[int] = []
        try:
            is_ours = not _exists(wanted.interface)
            self._files = [_opened(wanted) for _ in range(wanted.queues)]
            if is_ours:
                _control(_SIOCSIFMTU, struct.pack("16si20x", wanted.interface.encode(), end.mtu_bytes()))
            if wanted.up:
                _set_up(wanted.interface)
        except OSError as error:
            self._shut()
            raise refusal(f"TAP device {wanted.interface}", error, "CAP_NET_ADMIN") from error
        except BaseException:
            self._shut()
            raise
        self._transmit_queues = [TransmitQueue(file, capacity, _writer(file), end.lost) for file in self._files]
        self._plane: Plane | None = None
        self._lanes: dict[int, TapLane] = {}
        self._wire: Wire | None = None

    def start(self) -> None:
        """Begin to bring frames."""
        loop = asyncio.get_running_loop()
        for file in self._files:
            loop.add_reader(file, self._readable, file)

    @property
    def quick(self) -> bool:
        """Whether it goes by the plane."""
        return self._plane is not None

    def quicken(self, plane: Plane) -> None:
        """Go on by the plane, which is loaded now. Where there are several queues, Python chooses among them."""
        from lamina_vswitch.plane.kernel_ports import TapLane, Wire

        self._plane = plane
        self._lanes = {file: TapLane(file) for file in self._files}
        for file, queue in zip(self._files, self._transmit_queues, strict=True):
            wire = Wire(file, is_socket=False)
            queue.use(wire)
            if len(self._files) == 1:
                self._wire = wire
                self._end.connect(plane, wire)

    def close(self) -> None:
        """Close the device. Idempotent."""
        self._end.close()
        if self._plane is not None and self._wire is not None:
            self._end.disconnect(self._plane, self._wire)
        self._stop_reading()
        for queue in self._transmit_queues:
            queue.withdraw()
        self._shut()

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Give frames to the kernel, each flow by one queue."""
        queues = self._transmit_queues
        if len(queues) == 1:
            return queues[0].put_all(frames)
        taken: list[bytes] = []
        lost: list[bytes] = []
        for frame in frames:
            queue = queues[flow_hash(frame) % len(queues)]
            (taken if queue.put(frame) else lost).append(frame)
        return sorted_out(frames, taken, lost)

    def withdraw(self) -> list[bytes]:
        """Return what waits."""
        return [frame for queue in self._transmit_queues for frame in queue.withdraw()]

    def link_changed(self, up: bool) -> None:
        """Show the link to the kernel as the carrier of the device."""
        try:
            fcntl.ioctl(self._files[0], _TUNSETCARRIER, struct.pack("i", up))
        except OSError as error:
            self.detail = f"the carrier cannot be shown: {error.strerror}"

    def removed(self) -> None:
        """Do nothing: who keeps the backends closes it."""

    def _readable(self, file: int) -> None:
        if self._plane is not None:
            lane = self._lanes[file]
            self._end.switch(self._plane, lane.next(self._end.mtu_bytes()))
            if lane.error:
                self._failed(lane.error)
            return
        frames: list[bytes] = []
        for _ in range(MOST_AT_ONCE):
            try:
                data = os.read(file, _LONGEST)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._failed(error.errno or errno.EIO)
                break
            frames.append(from_kernel(data, data[LAYOUT.size :]))
        self._end.transmit(frames)

    def _failed(self, number: int) -> None:
        """Take an error of reading."""
        if number in _OVER:
            self._stop_reading()
            self.state, self.detail = BackendState.FAILED, f"the device went away: {os.strerror(number)}"
        else:
            self.detail = f"the last read failed: {os.strerror(number)}"

    def _stop_reading(self) -> None:
        loop = asyncio.get_running_loop()
        for file in self._files:
            loop.remove_reader(file)

    def _shut(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []


def _opened(wanted: Tap) -> int:
    try:
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise lacking("TAP devices", "/dev/net/tun is not there") from error
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if wanted.queues > 1 else 0)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", wanted.interface.encode(), flags))
        fcntl.ioctl(file, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
    except BaseException:
        os.close(file)
        raise
    return file


def _writer(file: int) -> Callable[[bytes], None]:
    def write(frame: bytes) -> None:
        os.writev(file, (to_kernel(frame), frame))

    return write


def _exists(interface: str) -> bool:
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def _set_up(interface: str) -> None:
    asked = struct.pack("16sH22x", interface.encode(), 0)
    flags = struct.unpack_from("16xH", _control(_SIOCGIFFLAGS, asked))[0]
    _control(_SIOCSIFFLAGS, struct.pack("16sH22x", interface.encode(), flags | _IFF_UP))


def _control(request: int, data: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return fcntl.ioctl(control, request, data)
