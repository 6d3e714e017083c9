"""Which traffic is encrypted: none inside a host, all of it beyond.

    address                                 traffic
    unix:/path · 127.0.0.0/8 · ::1 · localhost      plain: it does not leave this machine; `callers.py` asks who calls
    tls:HOST:PORT                           TLS with certificates on both sides, on any address
    HOST:PORT                               the same; plain only where the network is said to be private

`Security` holds what a process has for that; `credentials.py` makes of it what gRPC takes. docs/adr/0017-operations.md
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_kit.errors import FailedPrecondition
from lamina_kit.security.callers import Users

if TYPE_CHECKING:
    from lamina_kit.security.certificates import Material, Usage

TLS = "tls:"
"""Prefix of an address that asks for TLS."""
DAY_S = 86_400
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


@dataclass(frozen=True)
class TlsFiles:
    """Paths of the accepted authorities, of our certificate, and of its key, all in PEM."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def of(cls, folder: Path, ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> TlsFiles:
        """Returns the files in a folder as `lamina ca issue` writes it, or others in their places."""
        return cls(ca or folder / "ca.pem", cert or folder / "cert.pem", key or folder / "key.pem")

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Returns what changes when a file does; a missing one is zeros."""
        found = []
        for path in (self.ca, self.cert, self.key):
            try:
                state = path.stat()
                found.append((state.st_mtime_ns, state.st_size, state.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def read(self, usage: Usage) -> Material:
        """Returns what the files hold, checked; raises as `certificates.read`, naming the file."""
        from lamina_kit.security import certificates
        from lamina_kit.telemetry import log

        material = certificates.read(self.ca, self.cert, self.key, usage, time.time())
        days = int((material.ends - time.time()) / DAY_S)
        if days < certificates.SOON_DAYS:
            log.logger("tls").warning("certificate.ends_soon", file=str(self.cert), days=days)
        return material


@dataclass(frozen=True)
class Security:
    """What a process has for talking beyond its host. `plain_network`: the networks it is on are private."""

    tls: TlsFiles | None = None
    plain_network: bool = False
    users: Users = field(default_factory=Users, compare=False)
    """Who else of this machine may call its servers; a reload sets them anew."""

    def encrypts(self, address: str) -> bool:
        """Returns whether traffic of an address is encrypted.

        Raises:
            FailedPrecondition: `TLS_REQUIRED`, the address lies beyond the host and there is no certificate.
        """
        asked = address.startswith(TLS)
        if not asked and is_local(address):
            return False
        if self.tls is not None:
            return True
        if self.plain_network and not asked:
            return False
        why = "asks for TLS" if asked else "lies beyond this host, where traffic needs TLS with certificates"
        raise FailedPrecondition(
            f"The address {address} {why}, and no certificate was given.",
            reason="TLS_REQUIRED",
            next_step="Give --tls-dir a folder that `lamina ca issue` made, use 127.0.0.1 or a UNIX socket, or, on a "
            "private network, say --plain-network.",
        )

    def from_here(self, address: str) -> str:
        """Returns how clients on this host call a server that listens on an address: 0.0.0.0 and [::] on loopback."""
        host, _, port = bare(address).rpartition(":")
        if address.startswith("unix:") or host not in _EVERYWHERE:
            return address
        return f"{TLS if self.encrypts(address) else ''}{_EVERYWHERE[host]}:{port}"


PLAIN = Security()
"""A process that talks inside its host alone."""


def bare(address: str) -> str:
    """Returns an address without its `tls:`."""
    return address.removeprefix(TLS)


def is_local(address: str) -> bool:
    """Says whether nobody beyond this host can be at an address. Names are not looked up, `localhost` apart."""
    if address.startswith("unix:"):
        return True
    return is_loopback(bare(address).rpartition(":")[0].strip("[]"))


def is_loopback(host: str) -> bool:
    """Says whether a name or address of a host, without brackets, is this machine's own and nobody else reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
