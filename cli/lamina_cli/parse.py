"""What people type: sizes, addresses, whole numbers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

FACTORS = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kib": 1 << 10,
    "m": 1 << 20,
    "mib": 1 << 20,
    "g": 1 << 30,
    "gib": 1 << 30,
    "t": 1 << 40,
    "tib": 1 << 40,
}


def size(text: str) -> int:
    """Returns the bytes of `8GiB`, `64M`, `4096`; a whole number and a binary unit."""
    match = re.fullmatch(r"\s*(\d{1,18})\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in FACTORS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 4096, 64M or 8GiB")
    value = int(match[1]) * FACTORS[match[2].lower()]
    if value >= 1 << 63:
        raise argparse.ArgumentTypeError(f"{text!r} is more than any size here can be")
    return value


def address(text: str) -> int:
    """Returns an address given as `0x1000` or as a decimal number; 64 bits at most."""
    try:
        value = int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as 0x400000") from None
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} does not fit 64 bits")
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    """Returns a reader of whole numbers from `low` to `high`, both included; those of a field of the contracts."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]} is not between {low} and {high}")
        return value

    return read


INT32 = whole(-(2**31), 2**31 - 1)
INT64 = whole(-(2**63), 2**63 - 1)
