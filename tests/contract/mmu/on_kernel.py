"""Which tests of the contract run on engines that work on the kernel's memory, beside the model.

The others look into RAM that the stack has made, count its frames, or are of what such an engine refuses
(`test_kernel_refusals.py` tests that it does).
"""

from __future__ import annotations

ON_KERNEL: dict[str, tuple[str, ...]] = {}
"""Tests by module."""
