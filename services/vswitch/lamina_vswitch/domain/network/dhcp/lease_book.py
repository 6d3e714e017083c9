"""The addresses of one network: which are out, to whom, until when, and which is next.

An address is *out* while a lease holds it, *offered* for 60 s after a DISCOVER, *resting* for a while after it was
taken away or found in use, and else free. Nothing of that needs a timer: every record carries the time at which it
ends, and what has ended is settled when somebody asks. A device is told apart by its MAC address.

An address is chosen in this order: the reservation of the MAC address; what the device has or was offered; what it asks
for; the last that its port had; the lowest free one. A port has at most `per_port` addresses at a time, with offers and
those that rest because it declined them, so that a port that asks with ever new MAC addresses takes no more from the
others.
Source: RFC 2131, 4.3.1, which leaves the order of what is free to the server.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from heapq import heappop, heappush

from lamina_vswitch.domain.network.definition import Reservation
from lamina_vswitch.domain.network.dhcp.free_addresses import FreeAddresses
from lamina_vswitch.domain.network.dhcp.host_names import NameIndex
from lamina_vswitch.domain.network.dhcp.lease import (
    DECLINED_NS,
    FOREVER,
    OFFER_NS,
    REST_NS,
    Lease,
    LeaseKeeper,
    LeaseOrigin,
    Pool,
    Taken,
)


class LeaseBook:
    """The addresses of one network. Changes are recorded by the keeper before they hold here."""

    def __init__(self, pool: Pool, keeper: LeaseKeeper) -> None:
        self.pool = pool
        self._keeper = keeper
        self._out: dict[int, Lease] = {}
        self._offers: dict[int, Lease] = {}
        self._resting: dict[int, int] = {}
        self._declined: dict[int, str] = {}
        self._past: dict[int, Lease] = {}
        self._lease_of_mac: dict[bytes, int] = {}
        self._offer_of_mac: dict[bytes, int] = {}
        self._of_port: dict[str, list[int]] = {}
        self._last_of_port: dict[str, list[int]] = {}
        self._reserved: dict[int, Reservation] = {}
        self._reservations: dict[bytes, Reservation] = {}
        self._ends: list[tuple[int, int]] = []
        self._watched: dict[int, int] = {}
        self._free = FreeAddresses(pool.first, pool.last)
        self._names = NameIndex()
        self._renaming: int | None = None

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
        self._free = FreeAddresses(pool.first, pool.last)

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

    def reserved(self, address: int) -> Reservation | None:
        """Return the reservation of an address."""
        return self._reserved.get(address)

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

    def named(self, label: str, now_ns: int) -> int | None:
        """Return the address that has a name; of several the one that had it first."""
        self._settle(now_ns)
        return self._names.first(label)

    def name(self, address: int, now_ns: int) -> str:
        """Return the name of an address, empty when it has none or when another had the same first."""
        self._settle(now_ns)
        label = self._name_of(address)
        return label if label and self._names.first(label) == address else ""

    def named_addresses(self, now_ns: int) -> list[tuple[str, int]]:
        """Return all names with their addresses, ordered by name."""
        self._settle(now_ns)
        return self._names.all()

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
        if older is not None and older != lease.address:
            self._drop(self._out, older)
            self._free.give_back(older)
        self._past.pop(lease.address, None)
        with self._renamed(lease.address):
            if lease.address in self._out:
                self._drop(self._out, lease.address)
            self._put(self._out, lease)

    def has_room(self, port: str, mac: bytes, now_ns: int) -> bool:
        """Tell whether a port may have one more address, or the device has one of its addresses already."""
        return self._has_room(port, self.of_device(mac, now_ns))

    def release(self, address: int, now_ns: int) -> None:
        """Take back what its device gave up; it is free at once, and the port's last."""
        self._end(address, now_ns, rest_ns=0)

    def decline(self, address: int, now_ns: int) -> None:
        """Let an address rest that its device found in use; it counts for its port until then."""
        self._settle(now_ns)
        lease = self._out.get(address) or self._offers.get(address)
        self._end(address, now_ns, rest_ns=DECLINED_NS)
        if lease is not None and lease.port:
            self._declined[address] = lease.port
            self._count(lease.port, address)

    def end(self, address: int, now_ns: int) -> None:
        """End a lease from outside; the address is free 60 s later."""
        self._end(address, now_ns, rest_ns=REST_NS)

    def port_gone(self, port: str, now_ns: int) -> None:
        """End what was allocated to a port that is gone; what DHCP gave runs on and belongs to no port.

        The store does the same when it forgets the port.
        """
        self._settle(now_ns)
        for address in list(self._of_port.get(port, ())):
            if address in self._declined:
                self._uncount(self._declined.pop(address), address)
                continue
            if address in self._offers:
                self._drop(self._offers, address)
                self._free.give_back(address)
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
        reservation = self._reservations[mac]
        with self._renamed(reservation.address):
            del self._reservations[mac], self._reserved[reservation.address]
        self._free.give_back(reservation.address)

    def next_free(self, now_ns: int) -> int | None:
        """Return the lowest address that is free for a device without a reservation."""
        self._settle(now_ns)
        return self._lowest_free(b"")

    # Bookkeeping

    def _has_room(self, port: str, held: Lease | None) -> bool:
        return (held is not None and held.port == port) or len(self._of_port.get(port, ())) < self.pool.per_port

    def _reserve(self, reservation: Reservation) -> None:
        with self._renamed(reservation.address):
            self._reserved[reservation.address] = reservation
            self._reservations[reservation.mac] = reservation

    @contextmanager
    def _renamed(self, address: int) -> Iterator[None]:
        """Run a block that may change which name an address has. A name that stays keeps its place among equals."""
        if address == self._renaming:
            yield
            return
        self._renaming, before = address, self._name_of(address)
        try:
            yield
        finally:
            self._renaming, after = None, self._name_of(address)
            if before != after:
                self._names.remove(before, address)
                self._names.add(after, address)

    def _name_of(self, address: int) -> str:
        """Return the name that an address has: that of its reservation, or what its device says while it is out."""
        reserved, lease = self._reserved.get(address), self._out.get(address)
        if reserved is not None and reserved.host_name and (lease is None or lease.mac == reserved.mac):
            return reserved.host_name
        return lease.host_name if lease is not None else ""

    def _put(self, table: dict[int, Lease], lease: Lease) -> None:
        if table is self._out:
            with self._renamed(lease.address):
                table[lease.address] = lease
        else:
            table[lease.address] = lease
        if lease.mac and lease.origin is LeaseOrigin.DHCP:
            of_mac = self._lease_of_mac if table is self._out else self._offer_of_mac
            of_mac[lease.mac] = lease.address
        if lease.port:
            self._count(lease.port, lease.address)
        if lease.end_ns != FOREVER:
            self._watch(lease.address, lease.end_ns)

    def _drop(self, table: dict[int, Lease], address: int) -> Lease:
        if table is self._out:
            with self._renamed(address):
                lease = table.pop(address)
        else:
            lease = table.pop(address)
        of_mac = self._lease_of_mac if table is self._out else self._offer_of_mac
        if of_mac.get(lease.mac) == address:
            del of_mac[lease.mac]
        if lease.port:
            self._uncount(lease.port, address)
        return lease

    def _count(self, port: str, address: int) -> None:
        insort(self._of_port.setdefault(port, []), address)

    def _uncount(self, port: str, address: int) -> None:
        held = self._of_port[port]
        del held[bisect_left(held, address)]
        if not held:
            del self._of_port[port]

    def _forget_offer(self, mac: bytes) -> None:
        offered = self._offer_of_mac.get(mac)
        if offered is not None:
            self._drop(self._offers, offered)
            self._free.give_back(offered)

    def _end(self, address: int, now_ns: int, *, rest_ns: int) -> None:
        self._settle(now_ns)
        if address in self._out:
            if rest_ns:
                self._keeper.remove(address)
            else:
                self._keeper.put(replace(self._out[address], end_ns=max(now_ns, 1)))
            self._remember(self._drop(self._out, address))
        elif address in self._offers:
            self._drop(self._offers, address)
        if rest_ns:
            self._rest(address, now_ns + rest_ns)
        else:
            self._free.give_back(address)

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
                    self._free.give_back(address)
                elif lease is not None and lease.end_ns != FOREVER:
                    self._watch(address, lease.end_ns)
            rest_ns = self._resting.get(address)
            if rest_ns is not None and rest_ns <= now_ns:
                del self._resting[address]
                if address in self._declined:
                    self._uncount(self._declined.pop(address), address)
                self._free.give_back(address)
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

    def _lowest_free(self, mac: bytes) -> int | None:
        return self._free.lowest(lambda address: self._obstructed(address, mac))

    def _obstructed(self, address: int, mac: bytes) -> bool:
        taken = address in self._out or address in self._offers or address in self._resting
        reserved = self._reserved.get(address)
        return taken or address in self.pool.own or (reserved is not None and reserved.mac != mac)
