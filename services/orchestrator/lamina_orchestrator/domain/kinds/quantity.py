"""Kubernetes quantities (`500m`, `1.5Gi`, `2e3`) as exact integers.

A quantity is held in nano-units. Digits below a nano-unit are rounded away from zero, as Kubernetes does.
Source: k8s.io/apimachinery/pkg/api/resource, quantity.go.
"""

from __future__ import annotations

import re

NANO = 10**9
_LIMIT = (2**63 - 1) * NANO
_FORM = re.compile(r"([+-]?)(\d{1,40})?(?:\.(\d{0,40}))?(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d{1,3})?", re.ASCII)
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()}


def parse_quantity(text: str) -> int:
    """Nano-units of a quantity. Raises ValueError for text that is none, or beyond 2**63 - 1 units."""
    sign, digits, suffix = _split(text)
    whole, fraction = digits
    mantissa = int((whole or "0") + fraction)
    scale = -len(fraction)
    if suffix in _BINARY:
        numerator, power = mantissa << _BINARY[suffix], scale + 9
    else:
        numerator, power = mantissa, scale + 9 + _exponent(suffix)
    nanos = numerator * int(10**power) if power >= 0 else -(-numerator // int(10**-power))
    if nanos > _LIMIT:
        raise ValueError("must be at most 9223372036854775807")
    return -nanos if sign == "-" else nanos


def _split(text: str) -> tuple[str, tuple[str, str], str]:
    form = _FORM.fullmatch(text)
    if form is None or not (form[2] or form[3]):
        raise ValueError("quantities must be a number with an optional suffix such as m, k, M, G, Ki, Mi, Gi or e3")
    return form[1], (form[2] or "", form[3] or ""), form[4] or ""


def _exponent(suffix: str) -> int:
    return int(suffix[1:]) if len(suffix) > 1 else _DECIMAL[suffix]


def canonical_quantity(text: str) -> str:
    """The form in which Kubernetes writes the quantity: `0.5` → `500m`, `1024Mi` → `1Gi`, `1.5Gi` → `1536Mi`.

    The form of a form is itself. (Kubernetes writes a binary quantity that is no multiple of 1024 without a suffix, and
    reads that as a decimal one; here it is decimal at once, or reading an object back would change it.)
    Raises ValueError as `parse_quantity` does.
    """
    nanos = parse_quantity(text)
    suffix = _split(text)[2]
    if suffix in _BINARY and abs(nanos) >= 1024 * NANO:
        return _binary(-(-nanos // NANO))
    if len(suffix) > 1 and suffix not in _BINARY:
        return _scaled(nanos, "e")
    return _scaled(nanos, "")


def _binary(units: int) -> str:
    power = 60
    while power and units % (1 << power):
        power -= 10
    return f"{units >> power}{_BINARY_SUFFIX[power]}" if power else _scaled(units * NANO, "")


def _scaled(nanos: int, exponent: str) -> str:
    power = 18
    while power > -9 and nanos % 10 ** (power + 9):
        power -= 3
    if not nanos:
        power = 0
    suffix = (f"e{power}" if power else "") if exponent else _DECIMAL_SUFFIX[power]
    return f"{nanos // 10 ** (power + 9)}{suffix}"


def millis(text: str) -> int:
    """Thousandths of a unit, rounded up: what CPU is counted in."""
    return -(-parse_quantity(text) // 10**6)


def units(text: str) -> int:
    """Whole units, rounded up: what bytes and pods are counted in."""
    return -(-parse_quantity(text) // NANO)
