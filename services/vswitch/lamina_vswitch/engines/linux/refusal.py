"""What the kernel refuses."""

from __future__ import annotations

import os

from lamina_kit.errors import Unavailable


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
