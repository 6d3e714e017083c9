"""Runs work in virtual time so that the same seed gives the same history, whatever the machine does meanwhile.

Two things that differ from process to process are taken out of Python's hands: the order of hashes (the process starts
itself again with `PYTHONHASHSEED=0`) and the moments of garbage collection, which here follow the loop's callbacks and
not the number of allocations: a finalizer must not run earlier because a cache was cold. `docs/adr/0005-time.md`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from lamina_kit.errors import FailedPrecondition
from lamina_kit.virtual.loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina_kit.telemetry.events import EventRecord

T = TypeVar("T")
HASH_SEED = "0"
BUFFER = 1 << 16


def with_fixed_hashes() -> None:
    """Starts this process again with fixed hashes, unless it has them; what it has printed must be flushed."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def random_seed() -> int:
    """Returns a seed for a run whose caller gave none, and says it, so that the run can be repeated."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}; the same one repeats this run: --seed {seed}", file=sys.stderr)
    return seed


def run(seed: int, main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` on a loop of its own in virtual time. Returns what it returns."""
    loop = VirtualLoop(seed)
    try:
        with loop.collecting_garbage():
            return loop.run(main)
    finally:
        loop.close()


def event_file(path: Path, buffering: int) -> TextIO:
    """Opens the file of an event log anew.

    Raises:
        FailedPrecondition: `EVENT_LOG_UNWRITABLE`, it cannot be made.
    """
    try:
        return path.open("w", encoding="ascii", buffering=buffering)
    except OSError as error:
        raise FailedPrecondition(
            f"the event log {path} cannot be written: {error.strerror}",
            reason="EVENT_LOG_UNWRITABLE",
            next_step="choose a path in a folder that exists and that you may write",
        ) from error


@contextmanager
def event_log(path: Path | None) -> Iterator[Callable[[EventRecord], None] | None]:
    """Opens a file for events, one JSON object a line as they happen; gives None without a path.

    Raises:
        FailedPrecondition: `EVENT_LOG_UNWRITABLE`.
    """
    if path is None:
        yield None
        return
    with event_file(path, BUFFER) as file:

        def write(entry: EventRecord) -> None:
            file.write(entry.json_line())

        yield write
