"""Certificates for tests, made by the authority of `lamina ca` at any time, the past included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from lamina_cli.authority import Authority
from lamina_kit.security.transport import TlsFiles

TODAY = timedelta()
LONG_AGO = timedelta(days=-400)
"""A certificate of a year that was made then has expired."""
TOMORROW = timedelta(days=2)
"""A certificate that is made then is not valid yet."""


def authority(folder: Path, name: str = "test authority", at: timedelta = LONG_AGO, days: int = 3650) -> Authority:
    """Returns the authority in a folder, made at a time relative to now when there is none."""
    made = Authority(folder, datetime.now(UTC) + at)
    if not made.cert.exists():
        made.init(name, days)
    return made


def issued(folder: Path, name: str, *sans: str, at: timedelta = TODAY, days: int = 365) -> TlsFiles:
    """Returns the files of a certificate that the authority in a folder issues at a time relative to now."""
    authority(folder)
    return TlsFiles.of(Authority(folder, datetime.now(UTC) + at).issue(name, sans, days))
