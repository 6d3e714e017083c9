"""The lease book against a naive one that looks at every address each time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lamina_vswitch.domain.network.definition import Reservation
from lamina_vswitch.domain.network.dhcp.lease import OFFER_NS, REST_NS, Lease, LeaseOrigin, Pool
from lamina_vswitch.domain.network.dhcp.lease_book import LeaseBook

LOW, HIGH, OWN = 1, 9, 1
FIRST, LAST, PER_PORT = 2, 8, 3
LEASE_NS = 5 * OFFER_NS
MACS = [bytes([2, 0, 0, 0, 0, number]) for number in range(6)]
PORTS = ["p0", "p1", "p2"]
RESERVED = Reservation(MACS[0], 4)


class Kept(dict[int, Lease]):
    """A keeper in memory."""

    def put(self, lease: Lease, instead_of: int | None = None) -> None:
        """Keep."""
        if instead_of is not None:
            del self[instead_of]
        self[lease.address] = lease

    def remove(self, address: int) -> None:
        """Forget."""
        del self[address]


@dataclass
class Naive:
    """Who has what until when, as lists that are searched. `past` are ended leases, oldest first."""

    leases: list[Lease] = field(default_factory=list)
    offers: list[Lease] = field(default_factory=list)
    resting: dict[int, int] = field(default_factory=dict)
    past: list[Lease] = field(default_factory=list)

    def settle(self, now: int) -> None:
        """Take away what has ended, in the order in which it did."""
        over = [lease for lease in self.leases if lease.end_ns <= now]
        ended = sorted(over, key=lambda each: (each.end_ns, each.address))
        self.past += ended
        self.leases = [lease for lease in self.leases if lease.end_ns > now]
        self.offers = [offer for offer in self.offers if offer.end_ns > now]
        self.resting = {address: end for address, end in self.resting.items() if end > now}

    def of_device(self, mac: bytes) -> Lease | None:
        """Return its offer, else its lease."""
        return next((each for each in self.offers + self.leases if each.mac == mac), None)

    def free_for(self, address: int, mac: bytes) -> bool:
        """Tell whether nobody but `mac` has an address."""
        held = [each for each in self.leases + self.offers if each.address == address and each.mac != mac]
        reserved = address == RESERVED.address and mac != RESERVED.mac
        return LOW <= address <= HIGH and address != OWN and not held and not reserved and address not in self.resting

    def has_room(self, port: str, mac: bytes) -> bool:
        """Tell whether a port may have one more."""
        held = self.of_device(mac)
        if held is not None and held.port == port:
            return True
        return sum(each.port == port for each in self.leases + self.offers) < PER_PORT

    def choose(self, mac: bytes, port: str, wanted: int) -> int | None:
        """Choose as the rules say."""
        if not self.has_room(port, mac):
            return None
        if mac == RESERVED.mac and self.free_for(RESERVED.address, mac):
            return RESERVED.address
        held = self.of_device(mac)
        if held is not None:
            return held.address
        last: list[int] = []
        for each in self.past:
            if each.port == port:
                last = [address for address in last if address != each.address] + [each.address]
        for address in (wanted, *reversed(last[-PER_PORT:])):
            if FIRST <= address <= LAST and self.free_for(address, mac):
                return address
        taken = {each.address for each in self.leases + self.offers}
        free = [a for a in range(FIRST, LAST + 1) if a not in taken and self.free_for(a, mac)]
        return free[0] if free else None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["discover", "request", "release", "end", "wait"]),
        st.integers(0, len(MACS) - 1),
        st.integers(0, len(PORTS) - 1),
        st.integers(0, 10),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_book_agrees_with_a_naive_one(steps: list[tuple[str, int, int, int]]) -> None:
    """Whatever devices do and whenever, both choose the same addresses, and the same are out."""
    kept, naive, now = Kept(), Naive(), 1
    book = LeaseBook(Pool(LOW, HIGH, FIRST, LAST, (OWN,), PER_PORT), kept)
    book.restore([], [RESERVED], now)
    for what, device, place, number in steps:
        mac, port = MACS[device], PORTS[place]
        naive.settle(now)
        held = naive.of_device(mac)
        if what == "discover":
            chosen = naive.choose(mac, port, number)
            assert book.choose(mac, port, number, now) == chosen
            if chosen is not None:
                book.offer(chosen, mac, port, "", now)
                naive.offers = [each for each in naive.offers if each.mac != mac]
                if not any(each.mac == mac and each.address == chosen for each in naive.leases):
                    naive.offers.append(Lease(chosen, mac, port, "", LeaseOrigin.DHCP, now + OFFER_NS))
        elif what == "request" and held is not None and naive.has_room(port, mac):
            assert book.has_room(port, mac, now)
            lease = Lease(held.address, mac, port, "", LeaseOrigin.DHCP, now + LEASE_NS)
            book.commit(lease, now)
            naive.offers = [each for each in naive.offers if each.mac != mac]
            naive.leases = [*(each for each in naive.leases if each.mac != mac), lease]
        elif what in ("release", "end") and held is not None and held in naive.leases:
            (book.release if what == "release" else book.end)(held.address, now)
            naive.leases.remove(held)
            naive.past.append(held)
            if what == "end":
                naive.resting[held.address] = now + REST_NS
        elif what == "wait":
            now += number * OFFER_NS // 2
            naive.settle(now)
        assert book.leases(now) == sorted(naive.leases, key=lambda each: each.address)
        recorded = sorted((each for each in kept.values() if each.end_ns > now), key=lambda each: each.address)
        assert recorded == book.leases(now)
