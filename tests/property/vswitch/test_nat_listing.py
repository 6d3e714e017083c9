"""The order of a translation table, kept up while entries come and go, against sorting anew."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_vswitch.domain.nat.flows import listing
from lamina_vswitch.domain.nat.flows.entry import Entry, Wanted
from lamina_vswitch.domain.nat.flows.listing import order
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.packet import ICMP, TCP, UDP

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([TCP, UDP, ICMP]), st.integers(1, 4), st.integers(1, 400)),
        st.tuples(st.just("remove"), st.just(0), st.just(0), st.integers(0, 400)),
        st.tuples(st.just("list"), st.sampled_from([0, TCP, UDP, ICMP]), st.integers(0, 4), st.just(0)),
    ),
    max_size=120,
)


@given(STEPS, st.sampled_from([0, 8, 1024]), st.sampled_from([0, 3, 128]))
@settings(max_examples=150, deadline=None)
def test_the_order_is_that_of_sorting_anew(steps: list[tuple[str, int, int, int]], least: int, few: int) -> None:
    """Whatever comes and goes between lists, each is all live entries of what was asked, sorted."""
    kept = listing._LEAST_CHANGES, listing._FEW
    listing._LEAST_CHANGES, listing._FEW = least, few
    try:
        play(steps)
    finally:
        listing._LEAST_CHANGES, listing._FEW = kept


def play(steps: list[tuple[str, int, int, int]]) -> None:
    """Follow the steps with a table and a plain list."""
    table, plain = Table(10_000, 10_000, lambda entry: None), dict[int, Entry]()
    for what, protocol, address, number in steps:
        if what == "add":
            wanted = Wanted(protocol, (address, number), (99, number % 7), (50, number), (99, number % 7), True)
            if not table.has_inside(wanted, 0):
                entry = table.add(wanted, 0)
                plain[entry.number] = entry
        elif what == "remove" and plain:
            chosen = list(plain)[number % len(plain)]
            table.remove(plain.pop(chosen))
        elif what == "list":
            wanted_entries = [
                entry for entry in plain.values() if protocol in (0, entry.protocol) and address in (0, entry.inside[0])
            ]
            found = table.entries(0, address or None, protocol or None)
            assert list(found) == sorted(wanted_entries, key=order)
