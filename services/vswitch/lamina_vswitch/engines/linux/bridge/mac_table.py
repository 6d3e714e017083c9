"""The MAC table of a switch on the kernel: what the kernel has learned, followed as it tells of it.

The kernel learns, ages, moves and refuses; this mirror is what it told, entry by entry, read before anything is asked
here. So the rules of `domain` can be read over the live table: traces, and the reason why a frame went nowhere. What
users do to the table goes to the kernel first. Static entries are ours: the kernel has them where their port is, and
forgets them with it.
"""

from __future__ import annotations

from typing import Protocol

from lamina_vswitch.domain.switch.fdb import Entry, Fdb, Learned


class KernelEntries(Protocol):
    """What a mirror asks of the kernel, for one switch."""

    def place(self, vlan: int, mac: bytes, slot: int) -> None:
        """Put a static entry where its port is, or where frames end when the port is not in the VLAN or not up."""

    def forget(self, vlan: int, mac: bytes, slot: int) -> None:
        """Remove an entry."""


class KernelFdb(Fdb):
    """What the kernel knows of one switch's addresses. Nothing dies here of age: the kernel says when it does."""

    def __init__(self, ageing_ns: int, limit: int, kernel: KernelEntries) -> None:
        super().__init__(ageing_ns, limit)
        self._kernel = kernel
        self._learned: dict[int, int] = {}

    # What the kernel tells

    def heard(self, vlan: int, mac: bytes, slot: int, now_ns: int) -> None:
        """Note that the kernel has an address behind a port."""
        entry = self.lookup(vlan, mac, now_ns)
        if entry is None:
            self._note(vlan, mac, slot, now_ns, static=False)
        elif not entry.static and entry.port != slot:
            self._left(entry)
            entry.port = slot
            self._behind[slot] = self._behind.get(slot, 0) + 1
            self.version += 1

    def lost(self, vlan: int, mac: bytes, slot: int) -> None:
        """Note that the kernel has forgotten an address behind a port; a static entry stays ours."""
        entry = self.lookup(vlan, mac, 0)
        if entry is not None and not entry.static and entry.port == slot:
            self._forget(vlan, mac)

    def seen(self, vlan: int, mac: bytes, seen_ns: int) -> None:
        """Note when the kernel saw an address last."""
        entry = self.lookup(vlan, mac, 0)
        if entry is not None:
            entry.seen_ns = seen_ns

    def dynamic_in(self, vlan: int) -> int:
        """Return how many learned entries a VLAN has."""
        return self._learned.get(vlan, 0)

    @property
    def room_for_learning(self) -> int:
        """How many learned entries there may be beside the static ones."""
        return self.limit - (self._size - sum(self._learned.values()))

    def statics(self) -> list[tuple[int, bytes, int]]:
        """Return VLAN, address and port of the static entries, ordered."""
        return [(vlan, mac, entry.port) for vlan, mac, entry in self.entries(0) if entry.static]

    # What users do

    def learn(self, vlan: int, mac: bytes, port: int, now_ns: int) -> Learned:
        """Raise: here the kernel learns."""
        raise AssertionError("the kernel learns")

    def remove(self, vlan: int, mac: bytes) -> bool:
        """Forget one entry, in the kernel first."""
        entry = self.lookup(vlan, mac, 0)
        if entry is None:
            return False
        self._kernel.forget(vlan, mac, entry.port)
        return self._forget(vlan, mac)

    def count(self, now_ns: int) -> int:
        """Return how many entries there are."""
        return self._size

    def known_route(self, vlan: int, dst: bytes, src: bytes, port: int, now_ns: int) -> int:
        """Return 0: there is no short cut past the kernel."""
        return 0

    def _insert(self, vlan: int, mac: bytes, port: int, now_ns: int, *, static: bool) -> None:
        if static:
            self._kernel.place(vlan, mac, port)
        self._note(vlan, mac, port, now_ns, static=static)

    def _note(self, vlan: int, mac: bytes, port: int, now_ns: int, *, static: bool) -> None:
        if not static:
            self._learned[vlan] = self._learned.get(vlan, 0) + 1
        super()._insert(vlan, mac, port, now_ns, static=static)

    def _forget(self, vlan: int, mac: bytes) -> bool:
        entry = self.lookup(vlan, mac, 0)
        if entry is not None and not entry.static:
            self._learned[vlan] -= 1
            if not self._learned[vlan]:
                del self._learned[vlan]
        return super().remove(vlan, mac)

    def _alive(self, entry: Entry, now_ns: int) -> bool:
        return True
