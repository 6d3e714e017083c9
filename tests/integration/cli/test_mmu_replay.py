"""`lamina mmu replay` in a stack that is up."""

from __future__ import annotations

from tests.integration.cli.conftest import Lamina

from lamina_cli.guests.assets import asset


def test_a_stack_replays_as_this_process_does(up: Lamina) -> None:
    """With --stack the trace goes to its MMU over a socket, and the answer is the same."""
    words = ("mmu", "replay", str(asset("examples/traces/belady.csv")), "--policy", "fifo,opt", "--frames", "3,4",
             "--explain", "2", "--curve")  # fmt: skip
    here, there = up.json(*words), up.json(*words, "--stack", "default")
    assert here == there
    assert [one["misses"] for one in there["results"]] == [9, 10, 7, 6]
