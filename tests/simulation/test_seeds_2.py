"""The simulation under faults, part 2 of 4: users, RPC faults and physical faults, then every invariant."""

from __future__ import annotations

import pytest
from tests.simulation import seeds


@pytest.mark.slow
@seeds.part(1)
def test_the_stack_heals(seed: int) -> None:
    """After the faults of a seed nothing is lost, nothing owned twice, nothing orphaned, and everything works."""
    assert seeds.check(seed).seconds > 0
