"""Validation of requests: all wrong fields are reported together. Pure.

    with Checks() as check:
        check.identifier("vm_id", request.vm_id)
        check.range("size_bytes", request.size_bytes, 4096, 2**40)

leaves the block with one `InvalidArgument` that lists every violation, or none. A check that later checks depend on
is asked with `that`, which also returns its result. An exception that the block itself raises is not replaced.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sized
from types import TracebackType

from lamina_kit.errors import InvalidArgument, Violation

_IDENTIFIER = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SHOWN = 80
"""Most characters of a wrong value that a message repeats: the value is somebody else's and may be huge."""


def shown(value: object) -> str:
    """Returns `value` as text for a message, cut to a length that a log line bears."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


class Checks:
    """Collects violations and raises them together at the end of its `with` block.

    `reason` is the reason of the `InvalidArgument`; layers that document one of their own pass it.
    """

    def __init__(self, reason: str = "REQUEST_INVALID") -> None:
        self.reason = reason
        self.violations: list[Violation] = []

    def __enter__(self) -> Checks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.raise_violations()

    def raise_violations(self) -> None:
        """Raises `InvalidArgument` when anything was wrong so far; returns otherwise."""
        if not self.violations:
            return
        listed = "; ".join(f"{violation.field} {violation.description}" for violation in self.violations)
        raise InvalidArgument(f"The request is wrong: {listed}.", reason=self.reason, violations=self.violations)

    def that(self, ok: bool, field: str, description: str) -> bool:
        """Records a violation unless `ok`; returns `ok`. The description continues the field's name: `is empty`."""
        if not ok:
            self.violations.append(Violation(field, description))
        return ok

    def range(self, field: str, value: int, low: int, high: int) -> None:
        """Wants `low` ≤ `value` ≤ `high`."""
        self.that(low <= value <= high, field, f"is {value}, not within {low} to {high}")

    def aligned(self, field: str, value: int, unit: int) -> None:
        """Wants `value` to be a multiple of `unit`."""
        self.that(value % unit == 0, field, f"is {value:#x}, not a multiple of {unit}")

    def identifier(self, field: str, value: str) -> None:
        """Wants a name that a person chose: 1 to 63 lower-case letters, digits and `-`, a letter first."""
        self.that(
            _IDENTIFIER.fullmatch(value) is not None,
            field,
            f"is {shown(value)}, not 1 to 63 lower-case letters, digits and '-' with a letter first and no '-' last",
        )

    def one_of(self, field: str, value: object, allowed: Collection[object]) -> None:
        """Wants `value` to be among `allowed`, which the message lists in its own order."""
        choices = ", ".join(str(choice) for choice in allowed)
        self.that(value in allowed, field, f"is {shown(value)}, not one of {choices}")

    def max_bytes(self, field: str, value: Sized, limit: int) -> None:
        """Wants at most `limit` bytes; text counts in UTF-8."""
        size = len(value.encode(errors="surrogatepass")) if isinstance(value, str) else len(value)
        self.that(size <= limit, field, f"has {size} bytes, more than {limit}")
