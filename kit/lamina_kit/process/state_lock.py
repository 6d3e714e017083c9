"""The lock on a state directory: one process at a time works in it.

The lock is the kernel's (flock) on a file that holds the owner's pid, so it ends with its process, however that ends.
Beside it stands how many processes have worked there.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from lamina_kit.errors import FailedPrecondition
from lamina_kit.security.private_folder import make_private

LOCK_FILE = "lock"
STARTS_FILE = "starts"


class StateLock:
    """Holds `state_dir` for one process; a context manager.

    Raises `FailedPrecondition` `STATE_DIR_IN_USE`, naming the pid that has it, `STATE_DIR_UNSAFE` where others can
    write, or `STATE_DIR_UNUSABLE`.
    """

    def __init__(self, state_dir: Path, layer: str) -> None:
        self.state_dir = state_dir
        self._layer = layer
        self._file = -1

    def __enter__(self) -> StateLock:
        path = self.state_dir / LOCK_FILE
        try:
            make_private(self.state_dir)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._taken() from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()} {self._layer}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Gives the directory free. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def count_start(self) -> int:
        """Counts this start of the process in the directory, which has to be locked; returns its number, from 1.

        Raises `FailedPrecondition` `STATE_DIR_UNUSABLE`.
        """
        path = self.state_dir / STARTS_FILE
        text = path.read_text(errors="replace").strip() if path.exists() else ""
        number = int(text) + 1 if text.isascii() and text.isdigit() else 1
        scratch = path.with_suffix(".new")
        try:
            scratch.write_text(f"{number}\n")
            scratch.replace(path)
        except OSError as error:
            raise self._unusable(error) from error
        return number

    def _unusable(self, error: OSError) -> FailedPrecondition:
        return FailedPrecondition(
            f"The state directory {self.state_dir} of the {self._layer} layer cannot be used: {error.strerror}.",
            reason="STATE_DIR_UNUSABLE",
            next_step="Check the path and who may write there.",
        )

    def _taken(self) -> FailedPrecondition:
        owner = os.pread(self._file, 100, 0).decode(errors="replace").split()
        self.release()
        pid = owner[0] if owner and owner[0].isdigit() else "unknown"
        name = owner[1] if len(owner) > 1 else "service"
        return FailedPrecondition(
            f"The state directory {self.state_dir} is in use by process {pid} ({name}).",
            reason="STATE_DIR_IN_USE",
            next_step=f"Stop process {pid}, or give this {self._layer} service a directory of its own: --state-dir.",
            pid=pid,
            state_dir=self.state_dir,
        )
