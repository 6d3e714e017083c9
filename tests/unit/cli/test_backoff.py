"""When a process that died is started again, and when it is given up."""

from __future__ import annotations

from lamina_cli.stack.backoff import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_DEATHS, STEADY_S, Backoff


def test_pauses_double_up_to_a_limit() -> None:
    """Deaths in a row are followed by longer and longer pauses, and at last by none: the process is given up."""
    backoff = Backoff()
    pauses = [backoff.died(0.0) for _ in range(MOST_DEATHS)]
    assert pauses[:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert backoff.died(0.0) is None


def test_a_steady_life_ends_the_row() -> None:
    """A process that had served for a while is started at once again, however often it died before."""
    backoff = Backoff()
    for _ in range(MOST_DEATHS):
        backoff.died(STEADY_S - 0.1)
    assert backoff.died(STEADY_S) == FIRST_PAUSE_S
    assert backoff.deaths == 1
