"""The type of constants for compiled code, for modules that are imported without the compiler. See `native.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

u64: Any = np.uint64
"""Makes a constant that is a 64-bit word in compiled code; a plain literal would be signed."""
