"""The table of rules in the kernel: changed as one transaction, counters read back as drops by reason.

Rules go in by the program `nft`, which checks a batch whole before any of it holds. Counters are read often, so they
are asked for by netlink.

Source: nft(8), `-f`; include/uapi/linux/netfilter/nf_tables.h of Linux 6.18.
"""

from __future__ import annotations

import struct

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.engines.linux.namespace import Namespace
from lamina_vswitch.engines.linux.netlink.requests import Netlink, attribute, attributes
from lamina_vswitch.engines.linux.nft import program
from lamina_vswitch.engines.linux.nft.rules import TABLE, FilteredPort, changed, counter_name, forgotten, unmade

_NETFILTER = 12
_GET_OBJECT = 10 << 8 | 19
_GENERIC = struct.Struct("=BBH")
_NETDEV_FAMILY = 5
_TABLE, _NAME, _TYPE, _DATA = 1, 2, 3, 4
_COUNTER_TYPE = (1).to_bytes(4, "big")
_PACKETS = 2


class NftTable:
    """The rules of an engine's ports that are devices of the kernel."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        with namespace.inside():
            self._netlink = Netlink(_NETFILTER)
        self._ports: dict[int, FilteredPort] = {}
        self._counters: dict[int, set[DropReason]] = {}
        self._left: dict[int, list[str]] = {}
        """What has to go yet of ports that were removed, where the kernel refused; before others get their places."""
        self._is_made = False

    def set(self, port: FilteredPort) -> None:
        """Let the rules of a port hold from the next frame on, instead of those that it had.

        Raises FailedPrecondition `NFT_REFUSED`; then the old ones hold.
        """
        if self._ports.get(port.slot) == port:
            return
        self._apply(self._changes(port))
        self._left.pop(port.slot, None)
        self._ports[port.slot] = port
        if port.reasons:
            self._counters.setdefault(port.slot, set()).update(port.reasons)

    def check(self, port: FilteredPort) -> None:
        """Raise FailedPrecondition `NFT_REFUSED` if `set` would; nothing changes."""
        if self._ports.get(port.slot) != port:
            self._apply(self._changes(port), check=True)

    def remove(self, slot: int) -> None:
        """Take the rules of a port away, and its counters; while its legs are there. Idempotent.

        Raises FailedPrecondition `NFT_REFUSED`; then they go with the next rules of the same port.
        """
        old = self._ports.pop(slot, None)
        reasons = self._counters.pop(slot, set())
        gone = (unmade(old) if old is not None else []) + forgotten(slot, sorted(reasons))
        self._left[slot] = self._left.get(slot, []) + gone
        self._apply(self._left[slot])
        del self._left[slot]

    def drops(self, slot: int) -> dict[DropReason, int]:
        """Return how many frames the rules of a port have dropped, by reason; without those that never did."""
        counts = {reason: self._packets(counter_name(slot, reason)) for reason in sorted(self._counters.get(slot, ()))}
        return {reason: count for reason, count in counts.items() if count}

    def close(self) -> None:
        """Let go of the kernel; the rules go with the namespace. Idempotent."""
        self._netlink.close()

    def _changes(self, port: FilteredPort) -> list[str]:
        return self._left.get(port.slot, []) + changed(self._ports.get(port.slot), port)

    def _apply(self, commands: list[str], *, check: bool = False) -> None:
        if not commands:
            return
        if not self._is_made:
            commands = [f"add table {TABLE}", *commands]
        options = ("--check",) if check else ()
        program.apply(self._namespace, "\n".join(commands) + "\n", "a policy", *options)
        self._is_made = self._is_made or not check

    def _packets(self, counter: str) -> int:
        """Return what a counter has counted. Raises Unavailable `KERNEL_REFUSED` when somebody took it away."""
        body = _GENERIC.pack(_NETDEV_FAMILY, 0, 0) + attribute(_TABLE, TABLE.split()[1])
        body += attribute(_NAME, counter) + attribute(_TYPE, _COUNTER_TYPE)
        for _, content in self._netlink.ask(_GET_OBJECT, body):
            data = attributes(attributes(content, _GENERIC.size)[_DATA])
            return int.from_bytes(data[_PACKETS], "big")
        return 0
