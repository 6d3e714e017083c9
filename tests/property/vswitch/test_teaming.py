"""Teaming under any course of failures, against what a reader of the contract would compute by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_vswitch.domain.uplink.teaming import Balancing, Team, choose, in_use

UPLINKS = tuple(range(1, 7))
KEYS = st.integers(0, 2**32 - 1)
SOME = st.lists(st.sampled_from(UPLINKS), min_size=1, unique=True)


@st.composite
def teams(draw: st.DrawFn) -> Team:
    """Returns a team of up to six uplinks."""
    order = draw(st.permutations(UPLINKS))
    active = draw(st.integers(1, len(order)))
    standby = draw(st.integers(0, len(order) - active))
    return Team(
        draw(st.sampled_from(Balancing)),
        tuple(order[:active]),
        tuple(order[active : active + standby]),
        draw(st.booleans()),
    )


def by_hand(team: Team, up: set[int], before: list[int]) -> list[int]:
    """Returns which uplinks are in use: places are given one by one, to the best that is left."""
    places = 1 if team.balancing is Balancing.FAILOVER else len(team.active)
    listed = list(team.active) + list(team.standby)
    chosen: list[int] = []
    for candidates in ([each for each in before if team.no_failback], listed):
        for uplink in sorted(candidates, key=listed.index):
            if uplink in up and uplink not in chosen and len(chosen) < places:
                chosen.append(uplink)
    return sorted(chosen, key=listed.index)


@given(teams(), st.lists(st.sets(st.sampled_from(UPLINKS)), min_size=1, max_size=12))
def test_uplinks_in_use_follow_from_what_is_up(team: Team, course: list[set[int]]) -> None:
    """Through any course of links that come and go, with and without failback."""
    before: tuple[int, ...] = ()
    for up in course:
        used = in_use(team, up.__contains__, before)
        assert list(used) == by_hand(team, up, list(before))
        before = used


@given(SOME, KEYS)
def test_a_choice_depends_on_who_is_there_alone(uplinks: list[int], key: int) -> None:
    """The order of the uplinks does not matter, and asking again does not either."""
    assert choose(uplinks, key) == choose(sorted(uplinks), key) == choose(uplinks[::-1], key) in uplinks


@given(SOME, KEYS, st.sampled_from(UPLINKS))
def test_a_failure_moves_only_what_was_there(uplinks: list[int], key: int, lost: int) -> None:
    """Whoever was at another uplink stays there when one fails; when it returns, all are where they were."""
    before = choose(uplinks, key)
    left = [uplink for uplink in uplinks if uplink != lost]
    if left and before != lost:
        assert choose(left, key) == before


def test_choices_are_spread() -> None:
    """Ten thousand keys share four uplinks within a tenth of a fair part."""
    counts = [0] * 5
    for key in range(10_000):
        counts[choose((1, 2, 3, 4), key)] += 1
    assert all(2250 < count < 2750 for count in counts[1:])
