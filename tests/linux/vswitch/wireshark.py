"""Wireshark as a judge of captures: what `tshark` makes of a file, and what `capinfos` counts in it."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

WARNING = 6 << 20
"""Severity of a warning of Wireshark's experts; errors are above."""

_VERIFY = ("ip.check_checksum", "tcp.check_checksum", "udp.check_checksum")
_PROBLEMS = ("_ws.malformed", "_ws.expert.severity", "_ws.expert.message", "_ws.lua.error")


def needs_wireshark() -> None:
    """Skips a test where there is no tshark."""
    if shutil.which("tshark") is None or shutil.which("capinfos") is None:
        pytest.skip("there is no program tshark with its capinfos")


def read(path: Path, *fields: str) -> list[tuple[str, ...]]:
    """Returns these fields of every packet, as text; several values of one field are joined by commas.

    Checksums are verified. Fails when the program complains of the file itself.
    """
    preferences = [word for name in _VERIFY for word in ("-o", f"{name}:TRUE")]
    wanted = [word for name in fields for word in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), *preferences, "-T", "fields", "-E", "quote=d", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if not line.startswith("Running as user")]
    assert (done.returncode, said) == (0, [])
    rows = csv.reader(io.StringIO(done.stdout), delimiter="\t")
    return [tuple(row) or ("",) for row in rows]  # a line without anything is one empty field


def problems(path: Path) -> dict[int, str]:
    """Returns what Wireshark finds wrong in packets, by their numbers from 1: malformed ones, warnings and errors."""
    found = {}
    for number, (malformed, severities, messages, _) in enumerate(read(path, *_PROBLEMS), 1):
        worst = max((int(each, 0) for each in severities.split(",") if each), default=0)
        if malformed or worst >= WARNING:
            found[number] = messages or "malformed"
    return found


def counts(path: Path) -> dict[str, str]:
    """Returns what capinfos says of a file, by its own words."""
    done = subprocess.run(["capinfos", "-M", str(path)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    lines = (line.partition(":") for line in done.stdout.splitlines() if not line.startswith(" "))
    return {name.strip(): value.strip() for name, _, value in lines}
