"""Names that were told against a list that is searched: sources, revisions, wildcards, and what exists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_vswitch.domain.network.dns.message import Type
from lamina_vswitch.domain.network.dns.zone import RecordSet, Zone

NAMES = ["lab", "a.lab", "b.lab", "*.lab", "x.a.lab", "*.a.lab", "*.b.lab", "y.x.a.lab"]
ASKED = [*NAMES, "c.lab", "z.a.lab", "z.b.lab", "z.x.a.lab", "other"]
SOURCES = ["me", "you"]
SETS = st.tuples(st.sampled_from(NAMES), st.sampled_from([Type.A, Type.PTR]), st.integers(0, 2))
UPDATES = st.tuples(st.sampled_from(SOURCES), st.lists(SETS, max_size=4), st.integers(0, 6), st.booleans())


def naive_find(sets: dict[tuple[str, int], RecordSet], name: str, kind: int) -> RecordSet | None:
    """Look a name up as RFC 4592 has it: itself; a wildcard in the place of its first label, where nothing else is."""
    known = {key[0] for key in sets}
    if name in known or any(each.endswith(f".{name}") for each in known):
        return sets.get((name, kind))
    return sets.get((f"*.{name.partition('.')[2]}", kind))


@given(st.lists(UPDATES, max_size=12))
def test_the_zone_agrees_with_a_naive_one(updates: list[tuple[str, list[tuple[str, Type, int]], int, bool]]) -> None:
    """After any updates both have the same sets, answer the same questions, and count the same."""
    zone, naive, newest = Zone(), dict[tuple[str, int], RecordSet](), dict.fromkeys(SOURCES, 0)
    for source, listed, revision, replace_all in updates:
        sets = [
            RecordSet(name, kind, tuple(f"10.0.0.{number}" for number in range(count)), 0, source)
            for name, kind, count in listed
        ]
        owners = {key[0]: each.source for key, each in naive.items()}
        assert {name: zone.owner(name) for name in NAMES} == {name: owners.get(name, "") for name in NAMES}
        if any(owners.get(each.name, source) != source for each in sets):
            continue  # refused before it comes here
        change = zone.plan(sets, source, revision, replace_all=replace_all)
        if revision and revision <= newest[source]:
            assert change is None
            continue
        assert change is not None
        zone.apply(change, source)
        newest[source] = max(newest[source], revision)
        wanted = {(each.name, int(each.type)): each for each in sets}
        if replace_all:
            naive = {key: each for key, each in naive.items() if each.source != source}
        naive = {key: each for key, each in {**naive, **wanted}.items() if each.answers}
        assert zone.revision(source) == newest[source]
    assert list(zone.sets()) == [naive[key] for key in sorted(naive)]
    assert len(zone) == len(naive)
    for source in SOURCES:
        assert zone.count(source) == sum(each.source == source for each in naive.values())
    for name in ASKED:
        for kind in (Type.A, Type.PTR):
            found, expected = zone.find(name, kind), naive_find(naive, name, kind)
            assert (found is None) == (expected is None)
            assert found is None or (found.name == name and expected is not None and found.answers == expected.answers)
        types = [kind for kind in (Type.A, Type.PTR) if naive_find(naive, name, kind) is not None]
        assert list(zone.types(name)) == types
        below = any(key[0].endswith(f".{name}") for key in naive)
        assert zone.exists(name) == (bool(types) or below)
