"""`lamina hardware` against a stack that runs."""

from __future__ import annotations

from typing import Any


def test_costs_are_listed_with_their_sources(up: Any) -> None:
    """Every event has its cycles and a source, by name, as a table and as JSON."""
    costs = up.json("hardware", "costs")
    assert [cost["event"] for cost in costs] == sorted(cost["event"] for cost in costs)
    assert all(cost["source"] for cost in costs)
    assert "walk.reference" in up.run("hardware", "costs").stdout
