"""The closed set of errors that Lamina raises. Pure.

One class per gRPC code, each with an UPPER_SNAKE reason that programs match on and a message that people read:

    LaminaError
    ├── InvalidArgument      the request is wrong whatever the state is; change the request
    ├── OutOfRange           an address or position lies outside what exists
    ├── NotFound             no object of that name
    ├── AlreadyExists        an object of that name is there and differs
    ├── FailedPrecondition   right request, wrong state; change the state first
    ├── Aborted              lost against somebody else; read again and retry
    ├── PermissionDenied     not allowed to this caller
    ├── ResourceExhausted    no room, quota or budget is left
    ├── Unavailable          the other side is not there now; retry later
    ├── DeadlineExceeded     time ran out
    ├── Cancelled            the caller or the owner gave up
    ├── Unimplemented        this engine or layer does not offer it
    ├── DataLoss             stored bytes are not what was written
    └── Internal             a defect of Lamina

`status.py` maps them to `google.rpc.Status` and back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]")


@dataclass(frozen=True)
class Violation:
    """One wrong field of a request.

    `field` is the path of the field as the contract names it, for example `vm.cpus[0].weight`.
    """

    field: str
    description: str


class LaminaError(Exception):
    """Base of every error that crosses a layer's boundary.

    `message` names the object and the cause in one sentence; `next_step` says what the reader can do about it.
    `metadata` holds what a program may need, keys in the order given, values as text.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        next_step: str = "",
        violations: Sequence[Violation] = (),
        **metadata: object,
    ) -> None:
        if not _REASON.fullmatch(reason):
            raise ValueError(f"the reason {reason!r} of an error is not UPPER_SNAKE of 2 to 63 characters")
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.next_step = next_step
        self.violations = tuple(violations)
        self.metadata = {key: str(value) for key, value in metadata.items()}

    def __str__(self) -> str:
        """Returns the message and the next step as one text."""
        return f"{self.message} {self.next_step}" if self.next_step else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}: {self})"


class InvalidArgument(LaminaError):
    """The request is wrong whatever the state is."""

    code = "INVALID_ARGUMENT"


class OutOfRange(LaminaError):
    """An address or a position lies outside what exists."""

    code = "OUT_OF_RANGE"


class NotFound(LaminaError):
    """No object of that name exists."""

    code = "NOT_FOUND"


class AlreadyExists(LaminaError):
    """An object of that name exists and differs from the one asked for."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(LaminaError):
    """The request is right but the state is not; retrying alone does not help."""

    code = "FAILED_PRECONDITION"


class Aborted(LaminaError):
    """Somebody else was first; the caller reads again and retries from there."""

    code = "ABORTED"


class PermissionDenied(LaminaError):
    """The caller may not do this."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(LaminaError):
    """No room, quota or budget is left."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(LaminaError):
    """The other side is not there now; the same request may succeed later."""

    code = "UNAVAILABLE"


class DeadlineExceeded(LaminaError):
    """The time that the caller gave ran out; the work may or may not have been done."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(LaminaError):
    """The caller or the owner gave up."""

    code = "CANCELLED"


class Unimplemented(LaminaError):
    """This engine or layer does not offer the operation."""

    code = "UNIMPLEMENTED"


class DataLoss(LaminaError):
    """Stored bytes are not what was written."""

    code = "DATA_LOSS"


class Internal(LaminaError):
    """A defect of Lamina itself."""

    code = "INTERNAL"


CLASSES: tuple[type[LaminaError], ...] = (
    InvalidArgument,
    OutOfRange,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    Aborted,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    DeadlineExceeded,
    Cancelled,
    Unimplemented,
    DataLoss,
    Internal,
)
"""Every class, in the order of the tree above."""
