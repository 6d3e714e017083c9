"""The ends of an overlay on other hosts, and which addresses are behind them. Pure.

Ends and addresses are told, and stay, or learned, and fade: one is alive while `now - seen < ageing`, and nothing runs
when it dies. What was told wins over what is seen. Both tables are bounded, and what is known stays known: a stranger
who invents addresses pushes nobody out.

Source: RFC 7348, 4.1 and 4.2; Linux drivers/net/vxlan/vxlan_core.c, vxlan_snoop.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lamina_vswitch.domain.switch.fdb import Fdb, Learned

MAX_ENDS = 4096
"""Most remote ends of an overlay, told and learned."""
MAX_MACS_OF_END = 4096
"""Most addresses that are told to be behind one end."""


class RemoteEnd(NamedTuple):
    """An end as users see it: `macs` are those told, in order; `age_ns` is -1 when nothing came from it yet."""

    address: int
    configured: bool
    macs: tuple[bytes, ...]
    age_ns: int
    received: int
    sent: int


class RemoteMac(NamedTuple):
    """An address behind a remote end as users see it; `age_ns` is 0 for one that was told."""

    mac: bytes
    address: int
    configured: bool
    age_ns: int


@dataclass(slots=True)
class _End:
    configured: bool
    seen_ns: int | None = None
    received: int = 0
    sent: int = 0
    macs: set[bytes] = field(default_factory=set)


class RemoteEnds:
    """The remote ends of one overlay, by IPv4 address, and the addresses behind them, `mac_limit` learned ones."""

    def __init__(self, ageing_ns: int, mac_limit: int) -> None:
        self._ends: dict[int, _End] = {}
        self._order: list[int] = []
        self._told: dict[bytes, int] = {}
        self._macs = Fdb(ageing_ns, mac_limit)
        self._reap_ns: int | None = None  # before this nobody dies: a learned end was seen later than it says

    @property
    def bounds(self) -> tuple[int, int]:
        """Ageing time in nanoseconds and limit of learned addresses."""
        return self._macs.ageing_ns, self._macs.limit

    # What users do

    def tell(self, address: int, behind: Iterable[bytes], now_ns: int) -> bool:
        """Note an end and the addresses behind it, in place of those told before. Return False when there is no room.

        An address that was behind another end is behind this one now, as a guest that moved. Telling takes the place of
        the learned end that was silent longest when there is no free one.
        """
        self._reap(now_ns)
        end = self._ends.get(address)
        if end is None:
            if len(self._ends) >= MAX_ENDS and not self._drop_learned():
                return False
            end = self._insert(address, configured=True)
        end.configured = True
        self._untell(end)
        for mac in behind:
            if mac in self._told:
                self._ends[self._told[mac]].macs.remove(mac)
            self._told[mac] = address
            end.macs.add(mac)
            self._macs.remove(0, mac)
        return True

    def forget(self, address: int, now_ns: int) -> bool:
        """Forget an end with all that is behind it. Return whether there was one."""
        self._reap(now_ns)
        return self._remove(address, now_ns)

    def forget_learned(self, now_ns: int) -> None:
        """Forget the ends and the addresses that were learned."""
        self._keep([address for address in self._order if self._ends[address].configured])
        self._macs.flush(now_ns)

    def resize(self, ageing_ns: int, mac_limit: int, now_ns: int) -> None:
        """Set the ageing time and the limit of learned addresses; those above it that were silent longest go."""
        self._macs.resize(ageing_ns, mac_limit, now_ns)
        self._reap_ns = now_ns
        self._reap(now_ns)

    # What traffic does

    def is_told(self, address: int) -> bool:
        """Tell whether an end was told."""
        end = self._ends.get(address)
        return end is not None and end.configured

    def heard(self, address: int, now_ns: int, *, learn: bool) -> None:
        """Count a tunnel packet from an end. An unknown one is learned, when that is wanted and there is room."""
        end = self._ends.get(address)
        if end is None or not self._alive(end, now_ns):
            self._reap(now_ns)
            if not learn or len(self._ends) >= MAX_ENDS:
                return
            end = self._insert(address, configured=False)
            if self._reap_ns is None:
                self._reap_ns = now_ns + self._macs.ageing_ns
        end.received += 1
        end.seen_ns = now_ns

    def learn(self, mac: bytes, address: int, now_ns: int) -> Learned:
        """Note that a station's address was seen behind an end that is known."""
        told = self._told.get(mac)
        if told is not None:
            return Learned.STATIC if told == address else Learned.STATIC_ELSEWHERE
        end = self._ends.get(address)
        if end is None or not self._alive(end, now_ns):
            return Learned.FULL  # its end found no place, so neither does it
        return self._macs.learn(0, mac, address, now_ns)

    def lookup(self, mac: bytes, now_ns: int) -> int | None:
        """Return the end behind which an address is, None when that is not known."""
        told = self._told.get(mac)
        if told is not None:
            return told
        entry = self._macs.lookup(0, mac, now_ns)
        return None if entry is None else entry.port

    def sent(self, address: int) -> None:
        """Count a tunnel packet to an end that is known."""
        self._ends[address].sent += 1

    def addresses(self, now_ns: int) -> list[int]:
        """Return the ends that are alive, ascending."""
        return [address for address in self._order if self._alive(self._ends[address], now_ns)]

    # What users see

    def ends(self, now_ns: int) -> list[RemoteEnd]:
        """Return the ends that are alive, ordered by address."""
        return [self._seen(address, now_ns) for address in self.addresses(now_ns)]

    def end(self, address: int, now_ns: int) -> RemoteEnd | None:
        """Return an end that is alive."""
        end = self._ends.get(address)
        return self._seen(address, now_ns) if end is not None and self._alive(end, now_ns) else None

    def macs(self, now_ns: int) -> list[RemoteMac]:
        """Return the addresses that are known, ordered by address."""
        told = [RemoteMac(mac, address, True, 0) for mac, address in self._told.items()]
        return sorted([*told, *self._learned(now_ns)])

    def _learned(self, now_ns: int) -> Iterator[RemoteMac]:
        for _, mac, entry in self._macs.entries(now_ns):
            yield RemoteMac(mac, entry.port, False, now_ns - entry.seen_ns)

    def _seen(self, address: int, now_ns: int) -> RemoteEnd:
        end = self._ends[address]
        age_ns = -1 if end.seen_ns is None else now_ns - end.seen_ns
        return RemoteEnd(address, end.configured, tuple(sorted(end.macs)), age_ns, end.received, end.sent)

    # Places

    def _alive(self, end: _End, now_ns: int) -> bool:
        return end.configured or (end.seen_ns is not None and now_ns - end.seen_ns < self._macs.ageing_ns)

    def _insert(self, address: int, *, configured: bool) -> _End:
        end = self._ends[address] = _End(configured)
        insort(self._order, address)
        return end

    def _remove(self, address: int, now_ns: int) -> bool:
        end = self._ends.pop(address, None)
        if end is None:
            return False
        self._order.remove(address)
        self._untell(end)
        self._macs.flush(now_ns, port=address)
        return True

    def _untell(self, end: _End) -> None:
        for mac in end.macs:
            del self._told[mac]
        end.macs.clear()

    def _reap(self, now_ns: int) -> None:
        """Take back the places of the dead; what was learned behind them is as dead, as it was seen no later."""
        if self._reap_ns is None or now_ns < self._reap_ns:
            return
        self._keep(self.addresses(now_ns))
        seen = [end.seen_ns for end in self._ends.values() if not end.configured and end.seen_ns is not None]
        self._reap_ns = min(seen) + self._macs.ageing_ns if seen else None

    def _keep(self, addresses: list[int]) -> None:
        """Forget all other ends, which were learned; ascending. What was learned behind them is the caller's matter."""
        self._ends = {address: self._ends[address] for address in addresses}
        self._order = addresses

    def _drop_learned(self) -> bool:
        """Give up the learned end that was silent longest."""
        learned = [(self._ends[address].seen_ns or 0, address) for address in self._order if not self.is_told(address)]
        if not learned:
            return False
        seen_ns, address = min(learned)
        return self._remove(address, seen_ns)
