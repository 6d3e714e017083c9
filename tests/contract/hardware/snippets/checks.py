"""What several snippets check by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], None]


def equal(found: object, wanted: object) -> None:
    """Fails, showing both, when they differ."""
    assert found == wanted, (found, wanted)


def both(*checks: Check) -> Check:
    """Returns the check that makes all of these."""

    def check(seen: Any) -> None:
        for one in checks:
            one(seen)

    return check
