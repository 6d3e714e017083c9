"""Events that are added up late are those that were added up at each exit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_hardware.domain.contexts.counts import COUNTERS, Counts, EventAccount

_CORES, _CONTEXTS = 2, 3

_steps = st.lists(
    st.tuples(
        st.integers(0, _CORES - 1),
        st.integers(0, _CONTEXTS - 1),
        st.dictionaries(st.integers(0, COUNTERS - 1), st.integers(1, 9), max_size=3),
        st.sampled_from(["", "context", "core"]),
    ),
    max_size=40,
)


@given(_steps)
def test_whoever_ran_has_the_events(steps: list[tuple[int, int, dict[int, int], str]]) -> None:
    """Contexts move between cores and are read in between: counts are always those of adding at once."""
    cores, contexts = [Counts() for _ in range(_CORES)], [Counts() for _ in range(_CONTEXTS)]
    accounts = [EventAccount(core) for core in cores]
    counted = [[0] * COUNTERS for _ in cores]
    by_core, by_context = [[0] * COUNTERS for _ in cores], [[0] * COUNTERS for _ in contexts]
    for core, context, news, read in steps:
        for event, times in news.items():
            counted[core][event] += times
            by_core[core][event] += times
            by_context[context][event] += times
        accounts[core].note(contexts[context], list(counted[core]))
        if read == "context":
            assert contexts[context].events == by_context[context]
        elif read == "core":
            assert cores[core].events == by_core[core]
    assert [context.events for context in contexts] == by_context
    assert [core.events for core in cores] == by_core
    assert [core.copy().events for core in cores] == by_core
