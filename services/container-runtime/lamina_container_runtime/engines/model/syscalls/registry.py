"""How a module of system calls lists what it has.

CALLS = Calls()

@CALLS.add("getpid")
def getpid(thread: Thread) -> int: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Call:
    """A system call: its function, how many arguments it takes beside the thread, and the name of its spans."""

    function: Callable[..., Any]
    arity: int
    span: str


@dataclass
class Calls:
    """The system calls of one module, by name."""

    table: dict[str, Call] = field(default_factory=dict)

    def add(self, *names: str) -> Callable[[F], F]:
        """Enters a function under its names."""

        def enter(function: F) -> F:
            arity = function.__code__.co_argcount - 1
            for name in names:
                self.table[name] = Call(function, arity, f"syscall {name}")
            return function

        return enter
