"""The logs of containers: one file each, a line an entry, in the form that CRI runtimes write.

    2025-11-24T12:30:05.000000123Z stdout F hello from web-1
    └─ time, UTC                   │      │ └─ content
                                   │      └─ F: a full line; P: a part, which the next entry of the stream goes on with
                                   └─ stream

A reader that follows is woken at each entry. Source: CRI, the log format of `kubelet`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lamina_container_runtime.domain.containers import log_line
from lamina_container_runtime.domain.containers.log_line import LogLine
from lamina_container_runtime.domain.wait import WaitQueue

MAX_BYTES = 256 << 20
_BLOCK = 1 << 16


@dataclass
class _Open:
    """A log that is written."""

    file: IO[bytes]
    size: int = 0
    dropped: bool = False
    partial: dict[str, bytearray] = field(default_factory=dict)


class LogStore:
    """Logs below one folder. A log holds at most 256 MiB; what comes after that is dropped, and `on_full` told once."""

    def __init__(self, folder: Path, now: Callable[[], int], on_full: Callable[[str], None]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._now = now
        self._on_full = on_full
        self._open: dict[str, _Open] = {}
        self._queues: dict[str, WaitQueue] = {}

    def path(self, container_id: str) -> Path:
        """Returns where the log of a container is."""
        return self._folder / f"{container_id}.log"

    def open(self, container_id: str) -> None:
        """Begins the log of a container."""
        self._open[container_id] = _Open(self.path(container_id).open("ab", buffering=0))

    def write(self, container_id: str, stream: str, data: bytes) -> None:
        """Takes bytes: whole lines are entered, the rest waits for its newline, at most 16 KiB of it."""
        log = self._open.get(container_id)
        if log is None:
            return
        waiting = log.partial.setdefault(stream, bytearray())
        waiting += data
        lines = list(log_line.take_lines(waiting))
        if lines:
            self._append(container_id, log, stream, lines)

    def close(self, container_id: str) -> None:
        """Ends a log: what was not ended by a newline is entered as a part."""
        log = self._open.pop(container_id, None)
        if log is not None:
            for stream, waiting in log.partial.items():
                if waiting:
                    self._append(container_id, log, stream, [(bytes(waiting), True)])
            log.file.close()
        self._queue(container_id).wake()

    def delete(self, container_id: str) -> None:
        """Removes a log."""
        self.close(container_id)
        self.path(container_id).unlink(missing_ok=True)
        self._queues.pop(container_id, None)

    def close_all(self) -> None:
        """Ends all logs."""
        for container_id in sorted(self._open):
            self.close(container_id)

    def is_open(self, container_id: str) -> bool:
        """Returns whether more may come."""
        return container_id in self._open

    def queue(self, container_id: str) -> WaitQueue:
        """Returns the queue that is woken when a log grows or ends."""
        return self._queue(container_id)

    def read(self, container_id: str, offset: int) -> tuple[list[LogLine], int]:
        """Returns the entries from `offset` on, at most 64 KiB of the file, and the offset behind them."""
        try:
            with self.path(container_id).open("rb") as file:
                file.seek(offset)
                data = file.read(_BLOCK)
                while data and b"\n" not in data and (more := file.read(_BLOCK)):
                    data += more
        except FileNotFoundError:
            return [], offset
        end = data.rfind(b"\n") + 1
        return [log_line.parse(line) for line in data[:end].split(b"\n")[:-1]], offset + end

    def offset_of_tail(self, container_id: str, lines: int) -> int:
        """Returns the offset in the file at which the last `lines` full lines begin."""
        try:
            with self.path(container_id).open("rb") as file:
                return _tail_offset(file, lines)
        except FileNotFoundError:
            return 0

    def _append(self, container_id: str, log: _Open, stream: str, lines: list[tuple[bytes, bool]]) -> None:
        text = b"".join(log_line.format(LogLine(self._now(), stream, data, partial)) for data, partial in lines)
        if log.size + len(text) > MAX_BYTES:
            if not log.dropped:
                log.dropped = True
                self._on_full(container_id)
            return
        log.file.write(text)
        log.size += len(text)
        self._queue(container_id).wake()

    def _queue(self, container_id: str) -> WaitQueue:
        return self._queues.setdefault(container_id, WaitQueue())


def _tail_offset(file: IO[bytes], lines: int) -> int:
    end = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    found = 0
    for position in _newlines_backwards(file, end):
        start = position + 1
        if start < end and _is_full(file, position):
            found += 1
            if found == lines:
                return start
    return 0


def _newlines_backwards(file: IO[bytes], end: int) -> Iterator[int]:
    """Yields the offsets of the newlines of a file, last first."""
    high = end
    while high > 0:
        low = max(0, high - _BLOCK)
        file.seek(low)
        block = file.read(high - low)
        at = block.rfind(b"\n")
        while at >= 0:
            yield low + at
            at = block.rfind(b"\n", 0, at)
        high = low


def _is_full(file: IO[bytes], newline: int) -> bool:
    """Returns whether the entry that ends at a newline is a full line, so that a new line begins behind it."""
    low = max(0, newline - 2 * log_line.MAX_CONTENT)
    file.seek(low)
    entry = file.read(newline - low).rsplit(b"\n", 1)[-1]
    return not log_line.parse(entry).partial
