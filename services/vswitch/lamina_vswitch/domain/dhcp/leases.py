"""The addresses of one network: which are out, to whom, until when, and which is next.

An address is *out* while a lease holds it, *offered* for 60 s after a DISCOVER, *resting* for a while after it was
taken away or found in use, and else free. Nothing of that needs a timer: every record carries the time at which it
ends, and what has ended is settled when somebody asks. A device is told apart by its MAC address.

An address is chosen in this order: the reservation of the MAC address; what the device has or was offered; what it asks
for; the last that its port had; the lowest free one. A port has at most `per_port` addresses at a time, offers
included, so that a port that asks with ever new MAC addresses takes no more from the others.
Source: RFC 2131, 4.3.1, which leaves the order of what is free to the server.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Protocol

from lamina_vswitch.domain.network import Reservation

NS_PER_SECOND = 1_000_000_000
OFFER_NS = 60 * NS_PER_SECOND
"""How long an offer holds its address."""
REST_NS = 60 * NS_PER_SECOND
"""How long an address rests whose lease was ended from outside: late frames then hit nobody."""
DECLINED_NS = 600 * NS_PER_SECOND
"""How long an address rests that a device found in use: somebody has it by hand."""
FOREVER = 0
"""End of a lease that lasts as long as its port."""


class LeaseOrigin(enum.IntEnum):
    """How an address came to be out; the numbers are the contract's."""

    DHCP = 1
    ALLOCATED = 2


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that is out. `mac` is empty when nobody told it; `port` is the id of a port of the network's switch.

    `end_ns` is the time since the stack's start at which it ends, or `FOREVER`. An empty `port`: the port is gone.
    """

    address: int
    mac: bytes
    port: str
    host_name: str
    origin: LeaseOrigin
    end_ns: int

    def live(self, now_ns: int) -> bool:
        """Whether it has not ended."""
        return self.end_ns == FOREVER or now_ns < self.end_ns


class LeaseKeeper(Protocol):
    """Keeps leases through `kill -9`. Each call is one transaction, and raises when it could not be made."""

    def put(self, lease: Lease, instead_of: int | None = None) -> None:
        """Record a lease in the place of any other of the same address, and forget that of another address."""

    def remove(self, address: int) -> None:
        """Forget the lease of an address."""


class Taken(enum.Enum):
    """Why an address cannot be had."""

    OUTSIDE = "not one of the subnet's addresses for devices"
    OUT = "out to another device"
    RESERVED = "reserved for another device"
    OWN = "the router's own"
    RESTING = "in use until lately"


@dataclass(frozen=True, slots=True)
class Pool:
    """Which addresses there are: `low` to `high` of the subnet may be out, `first` to `last` are given by choice.

    `own` are the router's. `per_port` is how many one port may have.
    """

    low: int
    high: int
    first: int
    last: int
    own: tuple[int, ...]
    per_port: int


class LeaseBook:
    """The addresses of one network. Changes are recorded by the keeper before they hold here."""

    def __init__(self, pool: Pool, keeper: LeaseKeeper) -> None:
        self.pool = pool
        self._keeper = keeper
        self._out: dict[int, Lease] = {}
        self._offers: dict[int, Lease] = {}
        self._resting: dict[int, int] = {}
        self._past: dict[int, Lease] = {}
        self._lease_of_mac: dict[bytes, int] = {}
        self._offer_of_mac: dict[bytes, int] = {}
        self._of_port: dict[str, list[int]] = {}
        self._last_of_port: dict[str, list[int]] = {}
        self._reserved: dict[int, Reservation] = {}
        self._reservations: dict[bytes, Reservation] = {}
        self._ends: list[tuple[int, int]] = []
        self._watched: dict[int, int] = {}
        self._fresh = pool.first
        self._freed: list[int] = []
        self._is_freed: set[int] = set()

    # Making the book from what is recorded

    def restore(self, leases: list[Lease], reservations: list[Reservation], now_ns: int) -> None:
        """Take over what is recorded; leases that have ended are remembered as their ports' last."""
        for reservation in reservations:
            self._reserve(reservation)
        for lease in leases:
            if lease.live(now_ns):
                self._put(self._out, lease)
            else:
                self._remember(lease)

    def reshape(self, pool: Pool, now_ns: int) -> None:
        """Give the network another range. What is out stays out until its end."""
        self._settle(now_ns)
        self.pool = pool
        self._fresh, self._freed, self._is_freed = pool.first, [], set()

    # Asking

    def leases(self, now_ns: int) -> list[Lease]:
        """Return the leases that have not ended, ordered by address."""
        self._settle(now_ns)
        return [self._out[address] for address in sorted(self._out)]

    def count(self, now_ns: int) -> int:
        """Return how many addresses are out."""
        self._settle(now_ns)
        return len(self._out)

    def lease(self, address: int, now_ns: int) -> Lease | None:
        """Return the lease of an address, if it is out."""
        self._settle(now_ns)
        return self._out.get(address)

    def reservations(self) -> list[Reservation]:
        """Return the reservations, ordered by address."""
        return [self._reserved[address] for address in sorted(self._reserved)]

    def reservation(self, mac: bytes) -> Reservation | None:
        """Return the reservation of a MAC address."""
        return self._reservations.get(mac)

    def may_use(self, port: str, mac: bytes, address: int, now_ns: int) -> bool:
        """Tell whether a lease or a reservation gives `address` to `mac` behind `port`."""
        found = self.lease(address, now_ns)
        if found is not None:
            return found.port == port and (not found.mac or found.mac == mac)
        reserved = self._reserved.get(address)
        return reserved is not None and reserved.mac == mac

    def of_device(self, mac: bytes, now_ns: int) -> Lease | None:
        """Return what a device was offered last, or else has by DHCP."""
        self._settle(now_ns)
        offered = self._offer_of_mac.get(mac)
        if offered is not None:
            return self._offers[offered]
        address = self._lease_of_mac.get(mac)
        return self._out[address] if address is not None else None

    def was_of(self, mac: bytes, port: str, address: int, now_ns: int) -> bool:
        """Tell whether the last lease of an address, ended now, was this device's or this port's."""
        self._settle(now_ns)
        past = self._past.get(address)
        return past is not None and (past.mac == mac or (past.port == port and port != ""))

    def obstacle(self, address: int, mac: bytes, now_ns: int) -> Taken | None:
        """Return why `mac` cannot have `address`, or None."""
        self._settle(now_ns)
        if not self.pool.low <= address <= self.pool.high:
            return Taken.OUTSIDE
        if address in self.pool.own:
            return Taken.OWN
        reserved = self._reserved.get(address)
        if reserved is not None and reserved.mac != mac:
            return Taken.RESERVED
        holder = self._out.get(address) or self._offers.get(address)
        if holder is not None and (not mac or holder.mac != mac or holder.origin is not LeaseOrigin.DHCP):
            return Taken.OUT
        return Taken.RESTING if address in self._resting else None

    # DHCP

    def choose(self, mac: bytes, port: str, wanted: int, now_ns: int) -> int | None:
        """Return the address to offer to a device, or None when there is none for it. `wanted` is 0 for any."""
        held = self.of_device(mac, now_ns)
        if not self._has_room(port, held):
            return None
        reserved = self._reservations.get(mac)
        if reserved is not None and self.obstacle(reserved.address, mac, now_ns) is None:
            return reserved.address
        if held is not None:
            return held.address
        for address in (wanted, *reversed(self._last_of_port.get(port, ()))):
            if self.pool.first <= address <= self.pool.last and self.obstacle(address, mac, now_ns) is None:
                return address
        return self._lowest_free(mac)

    def offer(self, address: int, mac: bytes, port: str, host_name: str, now_ns: int) -> None:
        """Hold an address that `choose` returned for 60 s; an older offer to the device is forgotten."""
        self._forget_offer(mac)
        if self._lease_of_mac.get(mac) != address:
            self._put(self._offers, Lease(address, mac, port, host_name, LeaseOrigin.DHCP, now_ns + OFFER_NS))

    def commit(self, lease: Lease, now_ns: int) -> None:
        """Let a device have an address that `obstacle` does not refuse it; what it had by DHCP before becomes free."""
        self._settle(now_ns)
        dhcp = lease.origin is LeaseOrigin.DHCP
        older = self._lease_of_mac.get(lease.mac) if dhcp else None
        self._keeper.put(lease, older if older != lease.address else None)
        if dhcp:
            self._forget_offer(lease.mac)
        if older is not None:
            self._drop(self._out, older)
            self._free(older)
        if lease.address in self._out:
            self._drop(self._out, lease.address)
        self._past.pop(lease.address, None)
        self._put(self._out, lease)

    def has_room(self, port: str, mac: bytes, now_ns: int) -> bool:
        """Tell whether a port may have one more address, or the device has one of its addresses already."""
        return self._has_room(port, self.of_device(mac, now_ns))

    def release(self, address: int, now_ns: int) -> None:
        """Take back what its device gave up; it is free at once, and the port's last."""
        self._end(address, now_ns, rest_ns=0)

    def decline(self, address: int, now_ns: int) -> None:
        """Let an address rest that its device found in use."""
        self._end(address, now_ns, rest_ns=DECLINED_NS)

    def end(self, address: int, now_ns: int) -> None:
        """End a lease from outside; the address is free 60 s later."""
        self._end(address, now_ns, rest_ns=REST_NS)

    def port_gone(self, port: str, now_ns: int) -> None:
        """End what was allocated to a port that is gone; what DHCP gave runs on and belongs to no port.

        The store does the same when it forgets the port.
        """
        self._settle(now_ns)
        for address in list(self._of_port.get(port, ())):
            if address in self._offers:
                self._drop(self._offers, address)
                self._free(address)
                continue
            lease = self._drop(self._out, address)
            if lease.origin is LeaseOrigin.ALLOCATED:
                self._rest(address, now_ns + REST_NS)
            else:
                self._put(self._out, replace(lease, port=""))
        self._last_of_port.pop(port, None)

    # Reservations

    def reserve(self, reservation: Reservation) -> None:
        """Keep an address for a MAC address; the caller has recorded it."""
        self._reserve(reservation)

    def unreserve(self, mac: bytes) -> None:
        """Keep it no more; a lease that it gave runs on."""
        reservation = self._reservations.pop(mac)
        del self._reserved[reservation.address]
        self._free(reservation.address)

    def next_free(self, now_ns: int) -> int | None:
        """Return the lowest address that is free for a device without a reservation."""
        self._settle(now_ns)
        return self._lowest_free(b"")

    # Bookkeeping

    def _has_room(self, port: str, held: Lease | None) -> bool:
        return (held is not None and held.port == port) or len(self._of_port.get(port, ())) < self.pool.per_port

    def _reserve(self, reservation: Reservation) -> None:
        self._reserved[reservation.address] = reservation
        self._reservations[reservation.mac] = reservation

    def _put(self, table: dict[int, Lease], lease: Lease) -> None:
        table[lease.address] = lease
        if lease.mac and lease.origin is LeaseOrigin.DHCP:
            of_mac = self._lease_of_mac if table is self._out else self._offer_of_mac
            of_mac[lease.mac] = lease.address
        if lease.port:
            insort(self._of_port.setdefault(lease.port, []), lease.address)
        if lease.end_ns != FOREVER:
            self._watch(lease.address, lease.end_ns)

    def _drop(self, table: dict[int, Lease], address: int) -> Lease:
        lease = table.pop(address)
        of_mac = self._lease_of_mac if table is self._out else self._offer_of_mac
        if of_mac.get(lease.mac) == address:
            del of_mac[lease.mac]
        if lease.port:
            held = self._of_port[lease.port]
            del held[bisect_left(held, address)]
            if not held:
                del self._of_port[lease.port]
        return lease

    def _forget_offer(self, mac: bytes) -> None:
        offered = self._offer_of_mac.get(mac)
        if offered is not None:
            self._drop(self._offers, offered)
            self._free(offered)

    def _end(self, address: int, now_ns: int, *, rest_ns: int) -> None:
        self._settle(now_ns)
        if address in self._out:
            self._keeper.remove(address)
            self._remember(self._drop(self._out, address))
        elif address in self._offers:
            self._drop(self._offers, address)
        if rest_ns:
            self._rest(address, now_ns + rest_ns)
        else:
            self._free(address)

    def _rest(self, address: int, end_ns: int) -> None:
        self._resting[address] = end_ns
        self._watch(address, end_ns)

    def _watch(self, address: int, end_ns: int) -> None:
        """See to it that `_settle` looks at an address by then. One look at a time is enough, so floods add nothing."""
        if end_ns < self._watched.get(address, end_ns + 1):
            self._watched[address] = end_ns
            heappush(self._ends, (end_ns, address))

    def _settle(self, now_ns: int) -> None:
        """Bring what has ended to its end, whenever somebody asks next."""
        while self._ends and self._ends[0][0] <= now_ns:
            end_ns, address = heappop(self._ends)
            if self._watched.get(address) != end_ns:
                continue
            del self._watched[address]
            for table in (self._out, self._offers):
                lease = table.get(address)
                if lease is not None and not lease.live(now_ns):
                    self._drop(table, address)
                    if table is self._out:
                        self._remember(lease)
                    self._free(address)
                elif lease is not None and lease.end_ns != FOREVER:
                    self._watch(address, lease.end_ns)
            rest_ns = self._resting.get(address)
            if rest_ns is not None and rest_ns <= now_ns:
                del self._resting[address]
                self._free(address)
            elif rest_ns is not None:
                self._watch(address, rest_ns)

    def _remember(self, lease: Lease) -> None:
        """Note an ended lease as the last of its port; a port remembers as many as it may have, the newest last."""
        if lease.origin is not LeaseOrigin.DHCP:
            return
        self._past[lease.address] = lease
        if lease.port:
            last = self._last_of_port.setdefault(lease.port, [])
            if lease.address in last:
                last.remove(lease.address)
            last.append(lease.address)
            del last[: -self.pool.per_port]

    def _free(self, address: int) -> None:
        if self.pool.first <= address < self._fresh and address not in self._is_freed:
            self._is_freed.add(address)
            heappush(self._freed, address)

    def _lowest_free(self, mac: bytes) -> int | None:
        """Return the lowest free address: one that was freed, or else the next that nobody ever had.

        Addresses of the range below `_fresh` that are not in `_freed` are taken; `_free` brings them back.
        """
        while self._freed:
            address = self._freed[0]
            if not self._obstructed(address, mac):
                return address
            self._is_freed.discard(heappop(self._freed))
        while self._fresh <= self.pool.last:
            if not self._obstructed(self._fresh, mac):
                return self._fresh
            self._fresh += 1
        return None

    def _obstructed(self, address: int, mac: bytes) -> bool:
        taken = address in self._out or address in self._offers or address in self._resting
        reserved = self._reserved.get(address)
        return taken or address in self.pool.own or (reserved is not None and reserved.mac != mac)
