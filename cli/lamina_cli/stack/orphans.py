"""What is left of a split stack whose supervisor was killed: processes that the kernel told to stop, and still do.

They hold ports and state directories. A new stack of the name waits for them: their end is a matter of seconds, and
each ends itself by an alarm when it cannot stop in order (`lamina_kit/process/main.py`).
"""

from __future__ import annotations

import time

from lamina_cli.client import home
from lamina_cli.output.progress import Line
from lamina_kit.errors import FailedPrecondition

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.05


def wait_out(record: home.StackRecord | None) -> None:
    """Returns when none of the processes of a record runs any more, at once when none does.

    Raises:
        FailedPrecondition: `STACK_STILL_STOPS`, some run after a minute; they are named.
    """
    if record is None or not left(record):
        return
    with Line(f"waiting for the last processes of stack {record.name}"):
        end = time.monotonic() + PATIENCE_SECONDS
        while still := left(record):
            if time.monotonic() > end:
                raise FailedPrecondition(
                    f"processes {', '.join(map(str, still))} of the stack {record.name!r} before have not ended",
                    reason="STACK_STILL_STOPS",
                    next_step=f"end them with `kill -9 {' '.join(map(str, still))}`",
                )
            time.sleep(LOOK_SECONDS)


def left(record: home.StackRecord) -> list[int]:
    """Returns the processes of a record that run, by number; one that only has the number of another does not count."""
    processes = record.processes.values()
    return sorted(known["pid"] for known in processes if home.start_ticks(known["pid"]) == known["start_ticks"] > 0)
