"""Preemption: a call that copies much lets other threads take a turn in between.

A step holds the event loop until it yields, and a copy between resident pages and a file yields nothing by itself.
"""

from __future__ import annotations

from lamina_container_runtime.engines.model.kernel.abi import signed
from lamina_container_runtime.engines.model.kernel.files.open_file import OpenFile
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_kit.effects import Sleep, Step

PIECE = 1 << 20
"""Most bytes that are copied at once."""
VECTORS = 64


class Turn:
    """How much of a call is done since other threads could last run: 1 MiB or 64 vectors make them take a turn.

    `files` are the descriptors that the call uses, with the open files that they were when it began.
    """

    def __init__(self, thread: Thread, *files: tuple[int, OpenFile]) -> None:
        self._thread = thread
        self._files = files
        self._bytes = self._vectors = 0

    def over(self, count: int, vectors: int = 0) -> Step[bool]:
        """Notes work done, and lets others run when it is time.

        Returns whether the call must end: its thread dies, or a descriptor is no longer the file that it was.
        """
        self._bytes += count
        self._vectors += vectors
        if self._bytes < PIECE and self._vectors < VECTORS:
            return False
        self._bytes = self._vectors = 0
        yield Sleep(0)
        slots = self._thread.process.fds.slots
        return self._thread.must_die or any(
            signed(fd, 32) not in slots or slots[signed(fd, 32)].file is not file for fd, file in self._files
        )
