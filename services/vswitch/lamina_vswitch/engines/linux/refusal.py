"""What the kernel refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from lamina_kit.errors import Unavailable

_GONE = (errno.ENODEV, errno.ENXIO, errno.ENETDOWN)


class KernelRefusal(Unavailable):
    """UNAVAILABLE `KERNEL_REFUSED`. `number` is the kernel's error number, `words` what it says besides."""

    def __init__(self, what: str, number: int, words: str = "") -> None:
        self.number = number
        super().__init__(
            f"The kernel refuses {what}: {words or os.strerror(number)}.",
            reason="KERNEL_REFUSED",
            next_step="Delete ports or switches that nobody needs, or see to its limits; then try again.",
            errno=number,
        )


def unless_gone(ask: Callable[[], object]) -> None:
    """Ask for something at a device; one that somebody took away needs nothing. Raises any other `KERNEL_REFUSED`."""
    try:
        ask()
    except KernelRefusal as refusal:
        if refusal.number not in _GONE:
            raise
