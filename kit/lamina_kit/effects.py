"""Effects: what a pure step asks the shell to do in its middle. Pure.

A step that may need another layer is a generator. It yields an effect and receives the effect's result:

    def read_user(memory: UserMemory, root: int, space: str, va: int, n: int) -> Step[bytes]:
        while True:
            try:
                return memory.read(root, va, n)
            except NeedFault as fault:
                yield FaultIn(space, fault.va, fault.write)      # a layer's own subclass of Effect

`driver.drive` performs the effects. Between a yield and its result other steps run: what was looked up before is
looked up again. An effect that fails raises its error at the yield, inside the step.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


class Effect:
    """Base of all effects. Layers subclass it with frozen dataclasses."""

    __slots__ = ()


@dataclass(frozen=True)
class Sleep(Effect):
    """Waits `ns` nanoseconds of the stack's time. Result: None."""

    ns: int


@dataclass(frozen=True)
class WaitFor(Effect):
    """Waits until somebody wakes `key`. Result: what the waker gave.

    A wake-up before the wait is not remembered: the step checks its condition first, and again after.
    """

    key: Hashable


class NeedFault(Exception):
    """A user address is not mapped as an access needs it: the caller has the page faulted in and tries again.

    `va` is the first byte that could not be reached; `write` says what the access wanted.
    """

    def __init__(self, va: int, write: bool) -> None:
        super().__init__(f"{'write' if write else 'read'} at {va:#x} needs its page")
        self.va = va
        self.write = write


Step: TypeAlias = Generator[Effect, Any, T]
"""A pure step that returns T; see the top of this file."""
