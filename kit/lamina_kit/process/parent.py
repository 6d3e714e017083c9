"""A process that ends with the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal

from lamina_kit.errors import FailedPrecondition

_PR_SET_PDEATHSIG = 1
"""Source: prctl(2)."""


def end_with(parent: int) -> None:
    """Has the kernel send SIGTERM to this process when its parent ends, even by SIGKILL.

    Raises:
        FailedPrecondition: `PARENT_GONE`, the process `parent` is not, or no longer, the one that started this one.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was told
        raise FailedPrecondition(
            f"Process {parent} did not start this one, or has ended.",
            reason="PARENT_GONE",
            next_step="Leave --parent away when nobody supervises this process.",
        )
