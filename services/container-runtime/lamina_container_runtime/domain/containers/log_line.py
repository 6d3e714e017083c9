"""One entry of a container's log, as text and as a value.

    TIME SPACE STREAM SPACE (F | P) SPACE CONTENT

`F` ends a line; `P` is a part of one. Source: CRI log format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

MAX_CONTENT = 16 << 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LogLine:
    """One entry: Unix time in nanoseconds, `stdout` or `stderr`, content without newline, whether it goes on."""

    time_ns: int
    stream: str
    data: bytes
    partial: bool


def take_lines(waiting: bytearray) -> Iterator[tuple[bytes, bool]]:
    """Takes whole lines, and parts of overlong ones, out of `waiting`; yields (content, whether it is a part)."""
    while True:
        end = waiting.find(b"\n", 0, MAX_CONTENT + 1)
        if end >= 0:
            yield bytes(waiting[:end]), False
            del waiting[: end + 1]
        elif len(waiting) > MAX_CONTENT:
            yield bytes(waiting[:MAX_CONTENT]), True
            del waiting[:MAX_CONTENT]
        else:
            return


def format(line: LogLine) -> bytes:
    """Returns an entry as a line of the log file."""
    mark = b"P" if line.partial else b"F"
    return b" ".join((format_time(line.time_ns).encode(), line.stream.encode(), mark, line.data)) + b"\n"


def parse(text: bytes) -> LogLine:
    """Returns the entry in a line of a log file, without its newline; one that is damaged is content of stdout."""
    parts = text.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr") or parts[2] not in (b"F", b"P"):
        return LogLine(0, "stdout", text, False)
    return LogLine(parse_time(parts[0].decode(errors="replace")), parts[1].decode(), parts[3], parts[2] == b"P")


def format_time(ns: int) -> str:
    """Returns a Unix time in nanoseconds as RFC 3339 with nine digits."""
    moment = datetime.fromtimestamp(ns // 10**9, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"


def parse_time(text: str) -> int:
    """Returns the Unix time in nanoseconds of what `format_time` wrote; 0 for anything else."""
    seconds, dot, fraction = text.removesuffix("Z").partition(".")
    if not dot or len(fraction) != 9 or not fraction.isdecimal():
        return 0
    try:
        passed = datetime.fromisoformat(seconds + "+00:00") - _EPOCH
    except ValueError:
        return 0
    return (passed.days * 86400 + passed.seconds) * 10**9 + int(fraction)
