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


NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}
_PART = r"(\d{1,18})(?:\.(\d{1,9}))?(ns|us|µs|ms|s|m|h|d)"


def duration(text: str) -> int:
    """Returns the nanoseconds of `250ms`, `1h30m`, `1.5s`, `2d`; exact, and below 2^63."""
    if re.fullmatch(f"({_PART})+", text) is None:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a duration such as 250ms, 1h30m or 2d")
    total = 0
    for whole_part, fraction, unit in re.findall(_PART, text):
        factor = NANOSECONDS[unit]
        total += int(whole_part) * factor
        if fraction:
            scaled = int(fraction) * factor
            if scaled % 10 ** len(fraction):
                raise argparse.ArgumentTypeError(f"{text[:40]!r} is finer than a nanosecond")
            total += scaled // 10 ** len(fraction)
    if total >= 1 << 63:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is more than any time here can be")
    return total


def rate(text: str) -> int:
    """Returns the thousandths of `10`, `0.5`, `2.125`: how fast a clock goes, as a multiple of real time."""
    match = re.fullmatch(r"(\d{1,7})(?:\.(\d{1,3}))?", text)
    if match is None or int(match[1]) > 1_000_000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a rate such as 1, 10 or 0.5, at most 1000000")
    return int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))


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
