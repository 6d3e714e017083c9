"""Which address has a name, when several devices say that they have it: the one that had it first."""

from __future__ import annotations


class NameIndex:
    """Addresses by name, each in the order in which it got the name. The empty name is none."""

    def __init__(self) -> None:
        self._addresses: dict[str, dict[int, None]] = {}

    def add(self, name: str, address: int) -> None:
        """Note that an address has a name."""
        if name:
            self._addresses.setdefault(name, {})[address] = None

    def remove(self, name: str, address: int) -> None:
        """Note that it has it no more. Idempotent."""
        held = self._addresses.get(name)
        if held is None:
            return
        held.pop(address, None)
        if not held:
            del self._addresses[name]

    def first(self, name: str) -> int | None:
        """Return the address that had the name first, or None."""
        held = self._addresses.get(name)
        return next(iter(held)) if held else None

    def all(self) -> list[tuple[str, int]]:
        """Return all names with their first addresses, ordered by name."""
        return [(name, next(iter(self._addresses[name]))) for name in sorted(self._addresses)]
