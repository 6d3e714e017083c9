"""Folders that only their user reads and writes: state, logs, recordings and dumps, whatever the umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lamina_kit.errors import FailedPrecondition
from lamina_kit.security.callers import user_name
from lamina_kit.telemetry import log

UMASK = 0o077
"""What files of a process of ours are made with: for their user alone."""
OTHERS_WRITE, OTHERS_READ = 0o022, 0o055


def make_private(folder: Path) -> None:
    """Makes a folder with mode 0700, or takes one that is there: what others can read is closed to them, and told.

    Raises `FailedPrecondition` `STATE_DIR_UNSAFE` for a folder that others can write or that is another user's, and
    `OSError` where it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    mode = stat.S_IMODE(state.st_mode)
    if state.st_uid not in (os.geteuid(), 0):
        raise _unsafe(folder, f"is {user_name(state.st_uid)}'s", "Choose another folder.")
    if mode & OTHERS_WRITE:
        why = f"can be written by other users (mode {mode:04o})"
        raise _unsafe(folder, why, f"`chmod 700 {folder}`, or choose another.")
    if mode & OTHERS_READ and state.st_uid == os.geteuid():
        folder.chmod(0o700)
        log.logger("state").warning("state.closed_to_others", folder=str(folder), mode=f"{mode:04o}")


def _unsafe(folder: Path, why: str, next_step: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"The state folder {folder} {why}: who writes there decides what is stored and run.",
        reason="STATE_DIR_UNSAFE",
        next_step=next_step,
        state_dir=folder,
    )
