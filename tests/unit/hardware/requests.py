"""Whether requests are taken, and which of their fields are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina_kit.errors import InvalidArgument, LaminaError


def wrong(call: Callable[[], object]) -> list[str]:
    """Returns the fields that a call refuses, or the reason of another refusal; nothing when it takes all."""
    try:
        call()
    except InvalidArgument as refused:
        return sorted({violation.field for violation in refused.violations}) or [refused.reason]
    except LaminaError as refused:
        return [refused.reason]
    return []


def made(message: Any, usual: dict[str, Any], fields: dict[str, Any]) -> Any:
    """Returns a message with its usual fields, but for those that are given."""
    return message(**usual | fields)


def check_each(
    make: Callable[..., Any], take: Callable[[Any], object], good: list[dict[str, Any]], bad: list[tuple[str, Any]]
) -> None:
    """Checks that each good message is taken, and that of each bad one exactly the named field is refused."""
    for fields in good:
        assert wrong(lambda fields=fields: take(make(**fields))) == [], fields  # type: ignore[misc]
    for field, fields in bad:
        assert wrong(lambda fields=fields: take(make(**fields))) == [field], fields  # type: ignore[misc]
