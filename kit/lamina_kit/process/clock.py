"""The clock of a service process: the machine's, at the time of its stack.

The stack's time starts in the process that has nobody below it. That process keeps the start beside its state, so that
the time goes on when it is killed and comes back; an orderly stop ends the time. Every other process joins the time
that the layer below tells in its handshake. All processes of a host share the kernel's monotonic clock, so joining once
is exact to the time of one call.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from lamina_kit.clock import RealClock

START_FILE = "clock.json"
_KERNEL_BOOT = Path("/proc/sys/kernel/random/boot_id")


class JoinedClock(RealClock):
    """A real clock that can take the time of a stack that runs already."""

    def join(self, now_ns: int) -> None:
        """Shows `now_ns` from now on. The caller sees to it that time goes back only with a reboot."""
        shift = now_ns - self.now_ns()
        self._start -= shift
        self._wall_start -= shift


def ground_clock(state_dir: Path) -> JoinedClock:
    """Returns the clock of a process with nobody below: it goes on from a killed predecessor's time, else from 0."""
    path = state_dir / START_FILE
    boot = _KERNEL_BOOT.read_text().strip() if _KERNEL_BOOT.exists() else ""
    start_ns = _kept_start(path, boot)
    if start_ns is not None:
        return JoinedClock(time.monotonic_ns() - start_ns)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps({"kernel_boot": boot, "start_ns": time.monotonic_ns()}) + "\n")
    scratch.replace(path)
    return JoinedClock()


def _kept_start(path: Path, kernel_boot: str) -> int | None:
    """Returns the monotonic time at which a killed predecessor's time began; None when nothing usable was left.

    A file that cannot be read says as little as none: monotonic times mean nothing in another boot of the machine.
    """
    try:
        kept = json.loads(path.read_text())
        boot, start_ns = kept["kernel_boot"], kept["start_ns"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = isinstance(start_ns, int) and boot == kernel_boot and 0 <= start_ns <= time.monotonic_ns()
    return start_ns if usable else None


def end_time(state_dir: Path) -> None:
    """Ends the time of the stack: the next start begins at 0."""
    (state_dir / START_FILE).unlink(missing_ok=True)
