"""The compiled policies of a replay choose what the policies of `domain/policies` choose, victim by victim."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.mmu.replaying import curves, explanations, plan, replayed, results
from tests.property.mmu.test_policies import replay as by_domain

from lamina_mmu.domain.policies.catalogue import OWN
from lamina_mmu.domain.policies.opt import next_accesses
from lamina_mmu.domain.policy import Policy
from lamina_mmu.replay.plan import CurvePlan, PolicyPlan, TlbPlan

traces = st.lists(st.integers(1, 30), max_size=300)
BELADY = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", list(OWN))
@given(trace=traces, frames=st.integers(1, 25))
def test_compiled_policies_choose_the_same_victims(name: str, trace: list[int], frames: int) -> None:
    """Misses and every victim, in order, are those of the definition."""
    outcomes = replayed(plan([name], [frames], explain=1000), trace, batch=37)
    expected = [(at, victim) for at, (_, victim) in enumerate(by_domain(OWN[name](frames), trace)) if victim]
    result = results(outcomes)[name, frames]
    assert [(one.access, one.page) for one in explanations(outcomes)[name, frames].evictions] == expected
    assert result.counts.misses == sum(missed for missed, _ in by_domain(OWN[name](frames), trace))
    assert result.counts.evictions == len(expected)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("clock", {"bits": 3}), ("2q", {"kin-percent": 60, "kout-percent": 10}), ("2q", {"kin-percent": 100}),
        ("s3fifo", {"small-percent": 40, "ghost-percent": 0, "threshold": 5}), ("s3fifo", {"small-percent": 0}),
        ("s3fifo", {"small-percent": 100}), ("mglru", {"generations": 7}), ("mglru", {"generations": 64}),
    ],
)  # fmt: skip
@given(trace=traces, frames=st.integers(1, 25))
def test_parameters_mean_the_same(name: str, values: dict[str, int], trace: list[int], frames: int) -> None:
    """A policy with other parameters than its defaults chooses the victims of the definition, too."""
    wanted = plan([name], [frames], explain=1000)
    outcomes = replayed(vars_with(wanted, PolicyPlan(name, values)), trace)
    expected = [victim for _, victim in by_domain(OWN[name](frames, values), trace) if victim]
    assert [one.page for one in explanations(outcomes)[name, frames].evictions] == expected


def vars_with(wanted: Any, policy: PolicyPlan) -> Any:
    """Returns a plan with another policy."""
    return type(wanted)(**{**vars(wanted), "policies": (policy,)})


@given(trace=traces, frames=st.integers(1, 10))
def test_explanations_are_what_the_future_shows(trace: list[int], frames: int) -> None:
    """Next uses, and the page that is used last of those that were there, are those of the trace itself."""
    ahead = next_accesses(trace)
    outcomes = replayed(plan(["lru", "opt"], [frames], explain=1000), trace)
    for name in ("lru", "opt"):
        resident: dict[int, int] = {}
        evictions = {one.access: one for one in explanations(outcomes)[name, frames].evictions}
        for at, page in enumerate(trace):
            if page not in resident and len(resident) == frames:
                one = evictions[at]
                uses = {kept: ahead[used] for kept, used in resident.items()}
                assert one.incoming_page == page and one.page in resident and one.reason
                assert one.next_use == (uses[one.page] - at if uses[one.page] < len(trace) else -1)
                assert uses[one.best_page] == max(uses.values())
                assert one.best_next_use == (uses[one.best_page] - at if uses[one.best_page] < len(trace) else -1)
                assert name == "lru" or one.best_page == one.page
                del resident[one.page]
            resident[page] = at


@given(trace=st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=200), frames=st.integers(1, 12))
@pytest.mark.parametrize("table_bits", [False, True])
@pytest.mark.parametrize("name", ["fifo", "arc", "opt"])
def test_write_backs_are_dirty_pages_that_went(
    name: str, table_bits: bool, trace: list[tuple[int, bool]], frames: int
) -> None:
    """A page that was written since it came is written back when it goes; others are dropped."""
    pages, writes = [page for page, _ in trace], [write for _, write in trace]
    outcomes = replayed(plan([name], [frames], explain=1000, table_bits=table_bits), pages, writes)
    gone = {one.access: one.page for one in explanations(outcomes)[name, frames].evictions}
    dirty: dict[int, bool] = {}
    written = 0
    for at, (page, write) in enumerate(trace):
        if at in gone:
            written += dirty.pop(gone[at])
        dirty[page] = dirty.get(page, False) or write
    assert results(outcomes)[name, frames].counts.write_backs == written


@given(trace=traces, frames=st.integers(1, 40), warmup=st.integers(0, 320), batch=st.integers(1, 50))
def test_warm_up_is_not_counted(trace: list[int], frames: int, warmup: int, batch: int) -> None:
    """What is counted after a warm-up is the whole less its begin, however the trace is cut into batches."""
    names = list(OWN)
    whole = results(replayed(plan(names, [frames]), trace))
    begin = results(replayed(plan(names, [frames]), trace[:warmup]))
    rest = results(replayed(plan(names, [frames], warmup=warmup), trace, batch=batch))
    for key, result in rest.items():
        assert result.accesses == len(trace[warmup:])
        if warmup <= len(trace) and key[0] != "opt":
            assert result.counts == whole[key].counts.minus(begin[key].counts)
            assert result.cold_misses == whole[key].cold_misses - begin[key].cold_misses


@given(trace=traces, batch=st.integers(1, 40))
def test_the_curve_of_lru_is_lru_at_every_size(trace: list[int], batch: int) -> None:
    """Each point of the curve is what a replay with so many frames misses; opt's and fifo's are replays themselves."""
    names = ["lru", "opt", "fifo"]
    wanted = CurvePlan(tuple(PolicyPlan(name) for name in names))
    found = curves(replayed(plan(["lru"], [1], curve=wanted), trace, batch=batch))
    sizes = tuple(range(1, len(set(trace)) + 1))
    for name in names:
        assert found[name].frames == sizes
        if sizes:
            exact = results(replayed(plan([name], sizes), trace))
            assert found[name].misses == tuple(exact[name, size].counts.misses for size in sizes)


TLBS = [[(6, 2)], [(6, 2), (12, 4)], [(4, 1), (32, 16)], [(6, 3), (34, 34)], [(51, 17), (20, 20)], [(8, 2), (4096, 2)]]
"""Entries and ways of TLBs of one level and of two."""


def naive_tlb(trace: list[int], gone: dict[int, int], flushes: list[int], levels: list[tuple[int, int]]) -> list[int]:
    """Returns hits of each level and misses, with sets as lists, the newest first."""
    sets: list[dict[int, list[int]]] = [{} for _ in levels]
    counts = [0] * (len(levels) + 1)
    for at, page in enumerate(trace):
        if at in flushes:
            for level in sets:
                level.clear()
        places = [
            level.setdefault(page % (entries // ways), []) for level, (entries, ways) in zip(sets, levels, strict=True)
        ]
        for level, (entries, ways) in zip(sets, levels, strict=True):
            victim = gone.get(at, 0)
            if victim in level.get(victim % (entries // ways), []):
                level[victim % (entries // ways)].remove(victim)
        found = next((index for index, place in enumerate(places) if page in place), len(levels))
        counts[found] += 1
        for place, (_, ways) in list(zip(places, levels, strict=True))[: found + 1]:
            if page in place:
                place.remove(page)
            place.insert(0, page)
            del place[ways:]
    return counts


@given(
    trace=st.lists(st.integers(1, 90), max_size=300),
    frames=st.integers(1, 70),
    levels=st.sampled_from(TLBS),
)
@pytest.mark.parametrize(("name", "table_bits"), [("lru", False), ("lru", True), ("opt", False)])
def test_the_tlb_is_sets_of_lists(
    name: str, table_bits: bool, trace: list[int], frames: int, levels: list[tuple[int, int]]
) -> None:
    """Hits of both levels and misses are those of lists; what is evicted leaves both, and a sample of bits all."""
    tlb = TlbPlan(*levels[0], *(levels[1] if levels[1:] else ()))
    outcomes = replayed(plan([name], [frames], tlb=tlb, explain=1000, table_bits=table_bits), trace, batch=23)
    gone = {one.access: one.page for one in explanations(outcomes)[name, frames].evictions}
    counts = results(outcomes)[name, frames].counts
    expected = naive_tlb(trace, gone, list(gone)[:: max(1, min(32, frames // 16))] if table_bits else [], levels)
    found = [counts.tlb_hits, counts.tlb_second_hits, counts.tlb_misses]
    assert found == (expected if levels[1:] else [expected[0], 0, expected[1]])


def by_sampled_bits(policy: Policy, trace: list[int]) -> list[int]:
    """Returns the victims of a policy that sees accessed bits alone, sampled ahead of every so many evictions."""
    touched: dict[int, None] = {}
    fresh: dict[int, None] = {}
    first = {page: at for at, page in reversed(list(enumerate(trace)))}
    every = max(1, min(32, policy.capacity // 16))
    victims: list[int] = []
    for page in trace:
        if page not in policy:
            if len(policy) == policy.capacity:
                if len(victims) % every == 0:
                    own = {known: at for at, known in enumerate(policy.order())} if policy.name == "lru" else first
                    for seen in sorted((one for one in touched if one in policy), key=own.__getitem__):
                        if policy.first_access_counts or seen not in fresh:
                            policy.accessed(seen)
                        fresh.pop(seen, None)
                    touched.clear()
                choice = policy.evict(incoming=page)
                assert choice is not None
                victims.append(choice.page)
            policy.brought_in(page)
            fresh[page] = None
        touched[page] = None
    return victims


@pytest.mark.parametrize("name", [name for name in OWN if name != "opt"])
@given(trace=st.lists(st.integers(1, 90), max_size=400), frames=st.integers(1, 70))
def test_sampled_bits_are_all_that_a_policy_sees(name: str, trace: list[int], frames: int) -> None:
    """With `table_bits` a policy learns of accesses when its bits are sampled, once each, and not of a page's first."""
    outcomes = replayed(plan([name], [frames], explain=1000, table_bits=True), trace, batch=41)
    found = [one.page for one in explanations(outcomes)[name, frames].evictions]
    assert found == by_sampled_bits(OWN[name](frames), trace)


def test_a_ring_that_went_round_keeps_the_order_of_sampled_bits() -> None:
    """A trace many times as long as what `lru` keeps of it has the victims of the definition, to the last one."""
    chance = random.Random(11)
    trace = [int(500 ** chance.random()) for _ in range(12_000)]
    for frames in (32, 100):
        outcomes = replayed(plan(["lru"], [frames], explain=10_000, table_bits=True), trace)
        found = [one.page for one in explanations(outcomes)["lru", frames].evictions]
        assert found == by_sampled_bits(OWN["lru"](frames), trace)


def test_belady_and_the_best() -> None:
    """More memory, more misses: FIFO misses 9 times with 3 frames and 10 times with 4; OPT misses 7 and 6 times."""
    found = results(replayed(plan(["fifo", "opt"], [3, 4]), BELADY))
    assert [found["fifo", 3].counts.misses, found["fifo", 4].counts.misses] == [9, 10]
    assert [found["opt", 3].counts.misses, found["opt", 4].counts.misses] == [7, 6]
