"""Where a heap may begin: it is named once, in the first call of `SetBreak`. Pure."""

from __future__ import annotations

from lamina_kit.errors import FailedPrecondition


def check_start(space: int, heap_start: int, start: int) -> None:
    """Raises for a call that names `start` (0: none) on space number `space`, whose heap begins at `heap_start`.

    Raises:
        FailedPrecondition: `BREAK_NOT_SET`, there is no heap yet (0) and none is named; `BREAK_SET`, another is named.
    """
    if not heap_start and not start:
        raise FailedPrecondition(
            f"Space s-{space} has no heap yet.",
            reason="BREAK_NOT_SET",
            next_step="Name where it starts in the first call.",
        )
    if heap_start and start not in (0, heap_start):
        raise FailedPrecondition(
            f"The heap of s-{space} starts at {heap_start:#x}.",
            reason="BREAK_SET",
            next_step="Leave start 0 from the second call on.",
        )
