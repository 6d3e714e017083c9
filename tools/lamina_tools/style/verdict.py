"""How a style test fails: with the rule and every finding, and without a traceback, which would say nothing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def expect_none(findings: Iterable[str], rule: str | None = None) -> None:
    """Fails the test when there are findings, one a line below what the rule says."""
    found = list(findings)
    if found:
        pytest.fail("\n".join([rule, *found] if rule else found), pytrace=False)
