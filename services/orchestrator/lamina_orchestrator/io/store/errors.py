"""What stores refuse, in the same words whichever store it is."""

from __future__ import annotations

from lamina_kit.errors import Aborted, OutOfRange


def conflict(path: str, expected: int, have: int) -> Aborted:
    """The error for a write whose path is at another revision than expected."""
    return Aborted(
        f"{path[:300]} is at revision {have}, not {expected}.",
        reason="STORE_CONFLICT",
        next_step="Read it again and repeat the change.",
    )


def check_readable(revision: int, newest: int, compacted: int, *, at: bool) -> None:
    """Refuses a revision that is gone or does not exist yet; 0 stands for now when `at`, for the beginning if not.

    `at` says that the state at the revision is wanted, not the changes behind it.
    """
    if revision > newest:
        raise OutOfRange(
            f"Revision {revision} does not exist yet; the newest is {newest}.",
            reason="REVISION_FUTURE",
            next_step="List again, and go on from the list's resource version.",
        )
    if revision < compacted and (revision or not at):
        raise OutOfRange(
            f"Revision {revision} is too old: history up to {compacted} was compacted.",
            reason="REVISION_COMPACTED",
            next_step="List again, and go on from the list's resource version.",
        )
