"""Every policy against a textbook's version of itself, access by access, and against what is known of all."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.mmu.naive_policies import NAIVE

from lamina_mmu.domain.policies.catalogue import OWN
from lamina_mmu.domain.policies.opt import Opt, next_accesses
from lamina_mmu.domain.policy import Policy

BELADY = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]
names = pytest.mark.parametrize("name", list(OWN))
traces = st.lists(st.integers(1, 30), max_size=300)


def replay(policy: Policy, trace: list[int]) -> Iterator[tuple[bool, int | None]]:
    """Yields whether each access missed, and the page that went for it."""
    ahead = next_accesses(trace) if isinstance(policy, Opt) else []
    for position, page in enumerate(trace):
        if isinstance(policy, Opt):
            policy.foresee(page, ahead[position])
        if page in policy:
            policy.accessed(page)
            yield False, None
            continue
        victim = None
        if len(policy) == policy.capacity:
            choice = policy.evict(incoming=page)
            assert choice is not None and choice.reason
            victim = choice.page
            assert victim not in policy
        policy.brought_in(page)
        yield True, victim


def misses(name: str, trace: list[int], frames: int) -> int:
    """Returns how many accesses of a trace miss."""
    return sum(missed for missed, _ in replay(OWN[name](frames), trace))


def mixed_trace(seed: int, length: int) -> list[int]:
    """Returns a trace with a hot set, scans and a loop."""
    rng = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(80)]
    found: list[int] = []
    while len(found) < length:
        kind = rng.randrange(3)
        if kind == 0:
            found += rng.choices(range(1, 81), weights, k=rng.randrange(1, 60))
        elif kind == 1:
            start = rng.randrange(100, 400)
            found += range(start, start + rng.randrange(1, 60))
        else:
            found += list(range(90, 90 + rng.randrange(2, 40))) * 2
    return found[:length]


@names
@given(trace=traces, frames=st.integers(1, 12))
def test_each_victim_is_the_textbooks(name: str, trace: list[int], frames: int) -> None:
    """Told of every access, a policy lets go exactly the pages that its naive version lets go."""
    naive = NAIVE[name](frames, trace)
    for page, (_, victim) in zip(trace, replay(OWN[name](frames), trace), strict=True):
        assert victim == naive.access(page)


@names
@pytest.mark.parametrize("frames", [10, 20, 41, 64])
def test_each_victim_is_the_textbooks_on_long_traces(name: str, frames: int) -> None:
    """The same over traces with hot sets, scans and loops, where ghosts and generations come into play."""
    for seed in range(3):
        trace = mixed_trace(seed, 1500)
        naive = NAIVE[name](frames, trace)
        expected = [naive.access(page) for page in trace]
        assert [victim for _, victim in replay(OWN[name](frames), trace)] == expected


@names
@given(trace=traces, frames=st.integers(1, 12))
def test_none_misses_less_often_than_opt(name: str, trace: list[int], frames: int) -> None:
    """OPT's misses are a lower bound, the distinct pages another, the length of the trace an upper one."""
    found = misses(name, trace, frames)
    assert len(set(trace)) <= misses("opt", trace, frames) <= found <= len(trace)


def test_beladys_anomaly() -> None:
    """More frames, more misses: FIFO misses 9 times with 3 frames and 10 times with 4; LRU and OPT never do that."""
    assert [misses("fifo", BELADY, frames) for frames in (3, 4)] == [9, 10]
    assert [misses("lru", BELADY, frames) for frames in (3, 4)] == [10, 8]
    assert [misses("opt", BELADY, frames) for frames in (3, 4)] == [7, 6]


@given(trace=traces)
@pytest.mark.parametrize("name", ["lru", "opt"])
def test_stack_algorithms_never_miss_more_with_more_frames(name: str, trace: list[int]) -> None:
    """LRU and OPT are stack algorithms (Mattson): misses fall with frames."""
    found = [misses(name, trace, frames) for frames in range(1, 10)]
    assert found == sorted(found, reverse=True)


@names
def test_the_four_frame_example(name: str) -> None:
    """The document's example: four frames hold A, B, C, D, and for E page A goes, whatever the policy."""
    trace = [1, 2, 3, 4, 5]
    assert [victim for _, victim in replay(OWN[name](4), trace)] == [None] * 4 + [1]


def test_what_each_policy_keeps_of_the_four_frames() -> None:
    """A, B, C, D, A again, E: who lets A go does not look at accesses, or has not looked twice."""
    trace = [1, 2, 3, 4, 1, 5]
    gone = {name: [victim for _, victim in replay(OWN[name](4), trace)][-1] for name in OWN}
    assert gone == dict.fromkeys(OWN, 2) | {"fifo": 1, "2q": 1}


@names
@given(steps=st.lists(st.tuples(st.sampled_from("balre"), st.integers(1, 12), st.integers(0, 4095)), max_size=120))
def test_pages_that_may_not_go_stay_and_none_is_lost(name: str, steps: list[tuple[str, int, int]]) -> None:
    """With pinned pages, pages that leave by themselves and evictions that fail, the policy knows what is in RAM."""
    policy = OWN[name](6)
    held: set[int] = set()
    for kind, page, pinned in steps:
        if kind == "b" and page not in held:
            policy.brought_in(page)
            held.add(page)
        elif kind == "a" and page in held:
            policy.accessed(page)
        elif kind == "l":
            policy.left(page)
            held.discard(page)
        elif kind in "re":
            free = [one for one in policy.order() if not pinned >> one & 1]
            choice = policy.evict(set(free).__contains__, page if page not in held else 0)
            assert (choice is not None) == bool(free)
            if choice is not None:
                assert choice.page in free and choice.page not in policy
                if kind == "r":
                    policy.restored(choice.page)
                else:
                    held.discard(choice.page)
        assert sorted(policy.order()) == sorted(held) and len(policy) == len(held)
        assert all(one in policy and isinstance(policy.standing(one), str) for one in held)


@pytest.mark.parametrize("name", [name for name in OWN if name not in ("mglru", "s3fifo", "arc")])
@given(trace=traces, frames=st.integers(1, 12))
def test_the_order_is_what_will_happen(name: str, trace: list[int], frames: int) -> None:
    """Without further accesses pages go in the order that was told; looking at the order changes nothing."""
    policy = OWN[name](frames)
    list(replay(policy, trace))
    told = list(policy.order())
    assert told == list(policy.order())
    gone = []
    while (choice := policy.evict()) is not None:
        gone.append(choice.page)
    assert gone == told


@pytest.mark.parametrize("name", ["mglru", "s3fifo", "arc"])
@given(trace=traces, frames=st.integers(1, 12))
def test_the_order_has_each_page_once(name: str, trace: list[int], frames: int) -> None:
    """Where an eviction changes what comes after it, the order is that of the moment: every page, once."""
    policy = OWN[name](frames)
    list(replay(policy, trace))
    told = list(policy.order())
    assert sorted(told) == sorted(set(told)) and len(told) == len(policy)


@names
@given(trace=traces, sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_a_limit_may_change_at_any_time(name: str, trace: list[int], sizes: list[int]) -> None:
    """After a resize pages go until they fit, and the books stay right."""
    policy = OWN[name](8)
    for size in sizes:
        policy.resize(size)
        while len(policy) > size:
            assert policy.evict() is not None
        seen = set(policy.order())
        assert len(seen) == len(policy) <= size
        list(replay(policy, trace))
        assert len(policy) <= size
