"""A pytest plugin with the profile of generated input for mutants: the same each time, and not made smaller."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "mutation", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)
