"""Kubernetes time stamps and integer nanoseconds since the Unix epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


def rfc3339(ns: int) -> str:
    """Whole seconds, rounded down: `2026-01-02T03:04:05Z`, as metav1.Time."""
    return (_EPOCH + timedelta(seconds=ns // SECOND)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(ns: int) -> str:
    """Microseconds, rounded down: `2026-01-02T03:04:05.000006Z`, as metav1.MicroTime."""
    micros = ns // 1000
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> int:
    """Nanoseconds of an RFC 3339 time stamp. Raises ValueError for anything else."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"not an RFC 3339 time: {text[:64]!r}")
    year, month, day, hour, minute, second = (int(part) for part in form.groups()[:6])
    whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _EPOCH
    zone = form[8]
    offset = 0 if zone == "Z" else (1 if zone[0] == "+" else -1) * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    fraction = int((form[7] or "0").ljust(9, "0"))
    return (whole.days * 86400 + whole.seconds - offset) * SECOND + fraction
