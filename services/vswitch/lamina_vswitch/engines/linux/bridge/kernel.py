"""The kernel as one engine sees it: a namespace, a socket for requests, one that listens, and TAPs that have frames.

`cross` is the one way of a frame: written into a TAP, it has crossed its bridge when the call returns, and whatever has
a frame now gets asked for it.
"""

from __future__ import annotations

import errno
import resource
import select
from contextlib import ExitStack, closing, suppress
from typing import NamedTuple, Protocol

from lamina_vswitch.domain.backend.vnet import LAYOUT
from lamina_vswitch.engines.linux.bridge.leg import Leg
from lamina_vswitch.engines.linux.bridge.taps import Tap, laden
from lamina_vswitch.engines.linux.devices.ports import DevicePorts
from lamina_vswitch.engines.linux.namespace import Namespace
from lamina_vswitch.engines.linux.netlink import links, neighbours
from lamina_vswitch.engines.linux.netlink.neighbours import Neighbour
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.refusal import KernelRefusal

MOST_BRIDGES = 1024
"""Bridges of a host; a trunk's device could else have one made for each VLAN that there is."""

_AT_ONCE = 256
_TAP_FRAMES = 512
"""More than a TAP's queue has room for (TUN_READQ_SIZE of drivers/net/tun.c): what was sent lies within so many."""
_ROUNDS = 64
"""Frames of one TAP that are taken in a turn of the loop; devices of the kernel may send faster than they are read."""


class Stray(NamedTuple):
    """A frame that came out of a bridge and is not the one that was sent: port, VLAN, and the frame without a tag."""

    slot: int
    vlan: int
    frame: bytes


class TableFollower(Protocol):
    """Who has bridges and follows what the kernel tells of their tables: the `Bridges` of a switch."""

    def look(self, now_ns: int) -> None:
        """Read the tables anew: something of what the kernel told was lost."""

    def heard(self, kind: int, vlan: int, slot: int, found: Neighbour, now_ns: int) -> None:
        """Follow one change of the table of a VLAN, at the leg of a port."""

    def limit(self) -> None:
        """Let the kernel learn, or no more, after all that was told."""


class Kernel:
    """What one engine has on the kernel. Raises Unavailable `KERNEL_REFUSED`."""

    def __init__(self) -> None:
        with ExitStack() as made:
            self.namespace = made.enter_context(closing(Namespace()))
            with self.namespace.inside():
                self.netlink = made.enter_context(closing(Netlink()))
                self._ears = made.enter_context(closing(Netlink(groups=neighbours.TOLD)))
            self.devices = DevicePorts(self.netlink, self.namespace)
            made.pop_all()
        self._ready = select.epoll()
        self._ready.register(self._ears.socket, select.EPOLLIN)
        self.of_bridge: dict[int, tuple[TableFollower, int]] = {}
        """Switch and VLAN of a bridge by its index."""
        self.strays: list[Stray] = []
        """Frames that wait to be handed on, in the order in which they came."""
        self.most_taps = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        """TAPs, past which frames of a trunk have no further VLAN made: a quarter of the files that may be open."""
        self._legs: dict[int, Leg] = {}
        self._by_index: dict[int, Leg] = {}

    @property
    def descriptor(self) -> int:
        """What becomes readable when the kernel has something to tell or to deliver."""
        return self._ready.fileno()

    @property
    def is_closed(self) -> bool:
        """Whether everything has ended."""
        return self._ready.closed

    def close(self) -> None:
        """End everything. Idempotent."""
        self.devices.close()
        for leg in list(self._legs.values()):
            if leg.tap is not None:
                leg.tap.close()
        self._legs.clear()
        for end in (self._ready, self._ears, self.netlink, self.namespace):
            end.close()

    def add_bridge(self, name: str, ageing_seconds: int) -> int:
        """Make a bridge and return its index."""
        self.check_room(0)
        return links.add_bridge(self.netlink, name, ageing_seconds)

    def check_room(self, taps: int) -> None:
        """Raise Unavailable `KERNEL_REFUSED` when there is no room for a bridge with so many TAPs."""
        if len(self.of_bridge) >= MOST_BRIDGES:
            raise KernelRefusal("another VLAN", errno.ENOSPC, f"there are {MOST_BRIDGES} bridges already")
        if taps and len(self._legs) + taps > self.most_taps:
            raise KernelRefusal("another VLAN", errno.EMFILE, f"there are {len(self._legs)} TAPs already")

    def add_leg(self, leg: Leg) -> None:
        """Look at a TAP from now on."""
        self._by_index[leg.index] = leg
        if leg.tap is not None:
            self._legs[leg.tap.file] = leg
            self._ready.register(leg.tap.file, select.EPOLLIN)

    def remove_leg(self, leg: Leg) -> None:
        """Look at a TAP no longer."""
        del self._by_index[leg.index]
        if leg.tap is not None:
            del self._legs[leg.tap.file]
            self._look_away(leg)

    def cross(self, leg: Leg, frame: bytes, now_ns: int) -> list[int]:
        """Send a frame in at a leg; return the slots where it came out, ascending."""
        if leg.tap is None:
            raise KernelRefusal("a frame", errno.EINVAL, "what a device of the kernel sends does not pass here")
        leg.tap.write(frame)
        rounds = _TAP_FRAMES * (1 + len(self._legs) // _AT_ONCE)
        return sorted(self._collect(frame, rounds, now_ns))

    def listen(self, now_ns: int) -> None:
        """Take in what the kernel has told and delivered since; of very much, the rest stays for the next call."""
        self._collect(b"", _ROUNDS, now_ns)

    def _collect(self, sent: bytes, rounds: int, now_ns: int) -> list[int]:
        """Read what is there, so often at most; return where `sent` came out, and keep everything else as strays."""
        slots: list[int] = []
        for _ in range(rounds):
            ready = self._ready.poll(0, _AT_ONCE)
            if not ready:
                break
            for file, events in ready:
                leg = self._legs.get(file)
                if leg is None:
                    self._hear(now_ns)
                elif leg.tap is not None and (found := self._read(leg, leg.tap, events)) is not None:
                    header, frame = found
                    if frame == sent:
                        slots.append(leg.slot)
                    else:
                        self.strays.append(Stray(leg.slot, leg.vlan, laden(header, frame)))
        return slots

    def _read(self, leg: Leg, tap: Tap, events: int) -> tuple[bytes, bytes] | None:
        """Return header and bytes of a frame; a TAP that somebody took away is looked at no longer."""
        try:
            found = tap.read()
        except OSError:
            self._look_away(leg)
            return None
        if found is None and events & (select.EPOLLERR | select.EPOLLHUP):
            self._look_away(leg)
        return found if found is not None and len(found[0]) == LAYOUT.size else None

    def _look_away(self, leg: Leg) -> None:
        if leg.tap is not None:
            with suppress(OSError):  # it may be looked at no longer
                self._ready.unregister(leg.tap.file)

    def _hear(self, now_ns: int) -> None:
        """Take in what the kernel told of addresses; all tables are read anew when something of that was lost."""
        answers = self._ears.heard()
        if answers is None:
            for bridges in dict.fromkeys(bridges for bridges, _ in self.of_bridge.values()):
                bridges.look(now_ns)
                bridges.limit()
            return
        touched: dict[TableFollower, None] = {}
        for kind, found in neighbours.told(answers):
            leg, owner = self._by_index.get(found.port), self.of_bridge.get(found.bridge)
            if leg is not None and owner is not None:
                owner[0].heard(kind, owner[1], leg.slot, found, now_ns)
                touched[owner[0]] = None
        for bridges in touched:
            bridges.limit()
