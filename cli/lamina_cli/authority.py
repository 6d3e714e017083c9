"""A certificate authority in a folder, for development and for small private networks.

    DIR/ca.pem  DIR/ca-key.pem                     the authority; whoever has the key can be anybody
    DIR/issued/NAME/ca.pem  cert.pem  key.pem      one holder: the folder is what `--tls-dir` takes

Keys are EC P-256, and files with keys are for their owner alone. A certificate serves and calls: every service of
Lamina does both.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lamina_kit.checks import Checks
from lamina_kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    LaminaError,
    NotFound,
    PermissionDenied,
)
from lamina_kit.security import certificates

CA_DAYS, DAYS, MOST_DAYS = 3650, 365, 36500
MAX_COMMON_NAME = 64
"""Characters of a common name. Source: RFC 5280, appendix A.1, ub-common-name."""
SKEW = timedelta(minutes=5)
"""How far a certificate begins before it was made: clocks of machines differ."""
ALWAYS = ("localhost", "127.0.0.1", "::1")
"""What every certificate stands for beside its own names."""
_NAME = re.compile(
    r"(?=.{1,253}$)(\*\.)?([a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?"
)
_PEM = serialization.Encoding.PEM
_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One certificate: `days_left` is below 0 once it has ended, and `problem` says what is wrong with its files."""

    name: str
    kind: str
    serial: str
    sans: tuple[str, ...]
    not_before: str
    not_after: str
    days_left: int
    file: str
    problem: str = ""


class Authority:
    """The authority in a folder. `now` is when it acts."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self._folder = folder
        self._now = now
        self.cert, self.key = folder / "ca.pem", folder / "ca-key.pem"

    def folder_of(self, name: str) -> Path:
        """Returns the folder of a holder. Raises `InvalidArgument` `CERTIFICATE_NAME_INVALID`."""
        with Checks("CERTIFICATE_NAME_INVALID") as check:
            check.identifier("name", name)
        return self._folder / "issued" / name

    def init(self, name: str, days: int = CA_DAYS) -> Path:
        """Makes the authority. Returns the file of its certificate.

        Raises:
            AlreadyExists: `CA_EXISTS`; one that is replaced would leave all that it issued worthless.
            InvalidArgument: `CERTIFICATE_NAME_INVALID` or `CERTIFICATE_DAYS_INVALID`.
            PermissionDenied: `CA_UNWRITABLE`.
        """
        with Checks("CERTIFICATE_NAME_INVALID") as check:
            sound = 0 < len(name) <= MAX_COMMON_NAME and name.isprintable()
            check.that(sound, "name", f"is not 1 to {MAX_COMMON_NAME} characters that can be shown")
        _check_days(days)
        for path in (self.cert, self.key):
            if path.exists():
                raise AlreadyExists(
                    f"{path} is there already.",
                    reason="CA_EXISTS",
                    next_step="Use it, choose another --dir, or move it away: what it issued is then worthless.",
                )
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = (
            self._builder(subject, subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        _write({self.key: _private(key), self.cert: made.public_bytes(_PEM)})
        return self.cert

    def issue(self, name: str, sans: Sequence[str], days: int = DAYS) -> Path:
        """Issues a certificate for a name, and writes it with its key. Returns the folder.

        Raises:
            AlreadyExists: `CERTIFICATE_EXISTS`.
            InvalidArgument: `CERTIFICATE_NAME_INVALID`, `SAN_INVALID` or `CERTIFICATE_DAYS_INVALID`.
            NotFound: `CA_MISSING`.
            FailedPrecondition: `CERTIFICATE_EXPIRED`, of the authority, or as `certificates.read` for its files.
        """
        folder = self.folder_of(name)
        if folder.exists():
            raise AlreadyExists(
                f"{folder} is there already.",
                reason="CERTIFICATE_EXISTS",
                next_step=f"Use it, or `lamina ca renew {name}`; to change its names, delete the folder first.",
            )
        self._issue(folder, name, tuple(dict.fromkeys((name, *ALWAYS, *sans))), days)
        return folder

    def renew(self, name: str, days: int = DAYS) -> Path:
        """Issues the certificate of a holder anew, with the same names and a new key. Returns the folder.

        Raises:
            NotFound: `CERTIFICATE_UNKNOWN`, or as `issue`.
        """
        folder = self.folder_of(name)
        if not (folder / "cert.pem").exists():
            known = ", ".join(self.names()) or "none"
            raise NotFound(
                f"This authority has issued nothing for {name}.",
                reason="CERTIFICATE_UNKNOWN",
                next_step=f"`lamina ca issue {name} --san HOST` does; there are: {known}.",
            )
        old = certificates.load((folder / "cert.pem").read_bytes(), folder / "cert.pem")[0]
        self._issue(folder, name, tuple(certificates.sans(old)), days)
        return folder

    def names(self) -> list[str]:
        """Returns the names that certificates were issued for, in alphabetical order."""
        return sorted(path.parent.name for path in (self._folder / "issued").glob("*/cert.pem"))

    def list(self) -> list[Row]:
        """Returns the authority's certificate and all that it issued. Raises `NotFound` `CA_MISSING`."""
        self._need()
        rows = [self._row("-", "authority", self.cert)]
        return rows + [self._row(name, "holder", self.folder_of(name) / "cert.pem") for name in self.names()]

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _need(self) -> None:
        if not self.cert.exists():
            raise NotFound(
                f"There is no authority in {self._folder}.",
                reason="CA_MISSING",
                next_step="`lamina ca init` makes one.",
            )

    def _issue(self, folder: Path, name: str, sans: tuple[str, ...], days: int) -> None:
        _check_days(days)
        alternatives = [_san(entry) for entry in sans]
        self._need()
        moment = self._now.timestamp()
        material = certificates.read(self.cert, self.cert, self.key, None, moment)
        authority = certificates.load(material.cert, self.cert)[0]
        signer = serialization.load_pem_private_key(material.key, None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise FailedPrecondition(
                f"The key in {self.key} is no elliptic curve key.",
                reason="TLS_FILE_MALFORMED",
                next_step="Use an authority that `lamina ca init` made.",
            )
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        made = (
            self._builder(subject, authority.subject, key.public_key(), days, authority.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(usages, critical=False)
            .add_extension(usage, critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, hashes.SHA256())
        )
        files = {"key.pem": _private(key), "cert.pem": made.public_bytes(_PEM), "ca.pem": material.ca}
        _write({folder / file: raw for file, raw in files.items()})

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        days: int,
        latest: datetime | None = None,
    ) -> x509.CertificateBuilder:
        ends = self._now + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(self._now - SKEW, _EARLIEST))
            .not_valid_after(min(ends, latest) if latest is not None else ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    def _row(self, name: str, kind: str, path: Path) -> Row:
        try:
            raw = path.read_bytes()
            one = certificates.load(raw, path)[0]
            certificates.check_dates(one, "it", self._now)
            problem = ""
        except OSError as error:
            return Row(name, kind, "-", (), "-", "-", 0, str(path), f"cannot be read: {error.strerror}")
        except LaminaError as error:
            if error.reason == "TLS_FILE_MALFORMED":
                return Row(name, kind, "-", (), "-", "-", 0, str(path), error.message)
            problem = error.reason
        days = (one.not_valid_after_utc - self._now) // timedelta(days=1)
        begins, ends = certificates.stamp(one.not_valid_before_utc), certificates.stamp(one.not_valid_after_utc)
        serial = f"{one.serial_number:x}"
        return Row(name, kind, serial, tuple(certificates.sans(one)), begins, ends, days, str(path), problem)


def _check_days(days: int) -> None:
    with Checks("CERTIFICATE_DAYS_INVALID") as check:
        check.range("days", days, 1, MOST_DAYS)


def _san(text: str) -> x509.GeneralName:
    """Returns a name or an address of a host. Raises `InvalidArgument` `SAN_INVALID`."""
    with contextlib.suppress(ValueError):  # what is no address has to be a name
        return x509.IPAddress(ipaddress.ip_address(text))
    if not _NAME.fullmatch(text) or text.replace(".", "").isdigit():
        raise InvalidArgument(
            f"{text[:80]!r} is neither a host's name nor an IP address.",
            reason="SAN_INVALID",
            next_step="Give --san what clients call the service by: mmu.example.org or 192.0.2.7, without a port.",
        )
    return x509.DNSName(text)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(files: dict[Path, bytes]) -> None:
    """Writes files for their owner alone, each whole or not at all. A folder made for them goes when it fails."""
    folder = next(iter(files)).parent
    made = not folder.exists()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, raw in files.items():
            scratch = path.with_suffix(".new")
            scratch.unlink(missing_ok=True)
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            path.with_suffix(".new").replace(path)
    except OSError as error:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        for path in files:
            with contextlib.suppress(OSError):  # the reason why it could not be written is told below
                path.with_suffix(".new").unlink()
        raise PermissionDenied(
            f"{folder} cannot be written: {error.strerror}.",
            reason="CA_UNWRITABLE",
            next_step="Choose another --dir, or give yourself the right to write there.",
        ) from error
