"""Watching ports that are devices of the kernel: frames that only the kernel has come here as copies.

    leg ── rules ──┬── bridge            what comes in: nf_tables copy a frame where its fate is known, the mark of the
                   └── w ═ wx ─ socket   packet tells it; the labeller (`bpf/trunk.py`) writes the mark into a tag
    bridge ── leg ── d ─┬─ interface     what leaves: a packet socket at the port's device, behind its token bucket
                        └─ socket

Nothing of this is there while nobody watches. What this process sends out of the port itself it sends by the socket
that listens there, which is the one that the kernel does not show it to.

Source: packet(7), socket(7); net/netfilter/nf_dup_netdev.c, net/core/dev.c of Linux 6.18 (skb_loop_sk).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lamina_vswitch.domain.backend.vnet import LAYOUT, from_kernel, to_kernel
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.engines.linux.bpf import classifiers
from lamina_vswitch.engines.linux.bpf.trunk import labeller
from lamina_vswitch.engines.linux.namespace import Namespace
from lamina_vswitch.engines.linux.netlink import links
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.netlink.traffic_control import EGRESS, let_programs_run
from lamina_vswitch.engines.linux.netlink.veth import add_pair, set_up
from lamina_vswitch.engines.linux.refusal import KernelRefusal

_ETH_P_ALL, _SOL_PACKET = 3, 263
_STATISTICS, _AUXILIARY, _VNET_HEADER = 6, 8, 15
_TIMESTAMP_NS, _ATTACH_FILTER, _RECEIVE_BUFFER_FORCE = 35, 26, 33
_TAG_VALID, _TAG_TYPE_VALID = 0x10, 0x40
_TOLD = struct.Struct("=IIIHHHH")
"""Status, lengths, places of headers, tag and its type: `struct tpacket_auxdata`."""

_STAMP = struct.Struct("=qq")
_WAITING_BYTES = 8 << 20
_LONGEST, _LONGEST_TOLD = LAYOUT.size + 65535 + 22, 256
_LONGEST_MTU = 9018
_LEAVING = ((0x28, 0, 0, 0xFFFFF004), (0x15, 0, 1, 4), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0))
"""A filter that keeps what leaves: the kind of a packet is PACKET_OUTGOING, 4."""


class Seen(NamedTuple):
    """A frame that the kernel had, as it is at the port: `reason` says why it was dropped on its way in.

    `stamp_ns` is the kernel's time of day, which puts frames of several sockets into their order.
    """

    stamp_ns: int
    slot: int
    direction: Direction
    reason: DropReason | None
    frame: bytes


class Missed(NamedTuple):
    """How many frames found no room on their way here."""

    slot: int
    direction: Direction
    frames: int


@dataclass(slots=True)
class _Watch:
    """One port's: name and index of the device that takes copies, and the sockets where frames come in and leave."""

    name: str
    index: int
    coming: socket.socket
    leaving: socket.socket


class DeviceWatches:
    """The watched ports of an engine, by slot. Its calls raise Unavailable `KERNEL_REFUSED`."""

    def __init__(self, netlink: Netlink, namespace: Namespace) -> None:
        self._netlink = netlink
        self._namespace = namespace
        self._watches: dict[int, _Watch] = {}
        self._sockets: dict[int, tuple[int, Direction]] = {}
        self._made = 0
        self._ready = select.epoll()

    def __contains__(self, slot: int) -> bool:
        return slot in self._watches

    @property
    def descriptor(self) -> int:
        """What becomes readable when frames wait."""
        return self._ready.fileno()

    def begin(self, slot: int, device: str) -> None:
        """Listen at a port's device; copies come once its rules name `device_of`, which never was there before.

        Raises FailedPrecondition `BPF_REFUSED`.
        """
        self._made += 1
        name, peer = f"w{self._made}", f"w{self._made}x"
        add_pair(self._netlink, name, peer, _LONGEST_MTU)
        with contextlib.ExitStack() as made:
            index = links.index_of(self._netlink, name)
            made.callback(links.remove, self._netlink, index)
            for each in (index, links.index_of(self._netlink, peer)):
                set_up(self._netlink, each, up=True)
            let_programs_run(self._netlink, index)
            classifiers.attach(self._netlink, index, EGRESS, labeller(), "lamina-labeller")
            try:
                with self._namespace.inside():
                    coming = made.enter_context(_listening(peer))
                    leaving = made.enter_context(_listening(device, only_leaving=True))
            except OSError as error:
                raise KernelRefusal("a packet socket", error.errno or 0) from error
            made.pop_all()
        self._watches[slot] = _Watch(name, index, coming, leaving)
        for end, direction in ((coming, Direction.INGRESS), (leaving, Direction.EGRESS)):
            self._sockets[end.fileno()] = slot, direction
            self._ready.register(end.fileno(), select.EPOLLIN)

    def device_of(self, slot: int) -> str:
        """Return the device that takes copies of a port's frames; the port is watched."""
        return self._watches[slot].name

    def index_of(self, slot: int) -> int:
        """Return the index of that device; the port is watched."""
        return self._watches[slot].index

    def end(self, slot: int) -> None:
        """Listen no more. Rules that still name the device copy nothing then. Idempotent."""
        watch = self._watches.pop(slot, None)
        if watch is None:
            return
        self._close_sockets(watch)
        with contextlib.suppress(KernelRefusal):  # somebody took it away
            links.remove(self._netlink, watch.index)

    def close(self) -> None:
        """Let go of everything; the devices go with the namespace. Idempotent."""
        for slot in sorted(self._watches):
            self._close_sockets(self._watches.pop(slot))
        self._ready.close()

    def send(self, slot: int, frame: bytes) -> None:
        """Send a frame out of a watched port, unseen."""
        self._watches[slot].leaving.sendmsg((to_kernel(frame), frame))

    def seen(self, most: int) -> tuple[list[Seen], list[Missed]]:
        """Return what came since, at most so many frames of each socket, in order; and what was lost."""
        found: list[Seen] = []
        missed: list[Missed] = []
        ready = self._ready.poll(0) if self._watches else []
        for file in sorted(file for file, _ in ready):
            slot, direction = self._sockets[file]
            watch = self._watches[slot]
            end = watch.coming if direction is Direction.INGRESS else watch.leaving
            taken, lost = _taken(end, slot, direction, most)
            found += taken
            lost += struct.unpack("=II", end.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1]
            if lost:
                missed.append(Missed(slot, direction, lost))
        return sorted(found, key=_stamp), missed

    def _close_sockets(self, watch: _Watch) -> None:
        for end in (watch.coming, watch.leaving):
            del self._sockets[end.fileno()]
            self._ready.unregister(end.fileno())
            end.close()


def _stamp(seen: Seen) -> int:
    return seen.stamp_ns


def _listening(device: str, *, only_leaving: bool = False) -> socket.socket:
    """Return a socket that gets the frames of a device, each with its load, its tag and its time beside it."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        end.setsockopt(_SOL_PACKET, _VNET_HEADER, 1)
        end.setsockopt(_SOL_PACKET, _AUXILIARY, 1)
        end.setsockopt(socket.SOL_SOCKET, _TIMESTAMP_NS, 1)
        end.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, _WAITING_BYTES)
        if only_leaving:
            code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _LEAVING))
            program = struct.pack("=HxxxxxxQ", len(_LEAVING), ctypes.addressof(code))
            end.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
        end.bind((device, _ETH_P_ALL))
    except BaseException:
        end.close()
        raise
    return end


def _taken(end: socket.socket, slot: int, direction: Direction, most: int) -> tuple[list[Seen], int]:
    """Return frames that waited, and how many the kernel could not show."""
    found: list[Seen] = []
    unshown = 0
    for _ in range(most):
        try:
            data, beside, _, _ = end.recvmsg(_LONGEST, _LONGEST_TOLD)
        except OSError as error:
            if error.errno != errno.EINVAL:
                break  # nothing waits, or the device went down, which the socket tells once
            unshown += 1  # its header has no words for what is left to do at this frame, as of SCTP in segments
            continue
        stamp_ns, tag = _told(beside)
        header, frame = data[: LAYOUT.size], data[LAYOUT.size :]
        if direction is Direction.EGRESS:
            found.append(Seen(stamp_ns, slot, direction, None, from_kernel(header, frame, tag)))
        elif tag:
            label = int.from_bytes(tag[2:], "big")
            reason = DropReason(label) if label else None
            found.append(Seen(stamp_ns, slot, direction, reason, from_kernel(header, frame)))
    return found, unshown


def _told(beside: Sequence[tuple[int, int, bytes]]) -> tuple[int, bytes]:
    """Return the time of a frame, and its tag of four bytes, or none."""
    stamp_ns, tag = 0, b""
    for level, kind, told in beside:
        if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMP_NS):
            seconds, nanoseconds = _STAMP.unpack_from(told)
            stamp_ns = seconds * 1_000_000_000 + nanoseconds
        elif (level, kind) == (_SOL_PACKET, _AUXILIARY):
            status, _, _, _, _, control, tag_type = _TOLD.unpack_from(told)
            if status & _TAG_VALID:
                tag = struct.pack(">HH", tag_type if status & _TAG_TYPE_VALID else 0x8100, control)
    return stamp_ns, tag
