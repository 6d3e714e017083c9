"""Certificates on disk: read, and refused while they can still be named by file, before a handshake hides the reason.

ca.pem      the authorities whose certificates are accepted, one or several
cert.pem    our own certificate, and the intermediate ones between it and its authority
key.pem     the private key of the first certificate in cert.pem
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError, NotFound, PermissionDenied

MAX_FILE = 1 << 20
MAX_CHAIN = 8
SOON_DAYS = 14
"""A certificate with fewer days left is worth a warning."""

Usage = Literal["server", "client"]
_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_ISSUE = "Make one with `lamina ca issue NAME --san HOST`."


@dataclass(frozen=True)
class Material:
    """What the three files hold, in PEM, and when the certificate ends (Unix seconds)."""

    ca: bytes
    cert: bytes
    key: bytes
    ends: float


def read(ca: Path, cert: Path, key: Path, usage: Usage | None, now: float) -> Material:
    """Returns what three files hold, once they are known to work together for `usage` at `now` (Unix seconds).

    Raises:
        NotFound: `TLS_FILE_MISSING`.
        PermissionDenied: `TLS_FILE_UNREADABLE`.
        InvalidArgument: `TLS_FILE_MALFORMED`, a file is not the PEM that it should be, or is encrypted.
        FailedPrecondition: `CERTIFICATE_EXPIRED`, `CERTIFICATE_NOT_YET_VALID`, `CERTIFICATE_KEY_MISMATCH`,
            `CERTIFICATE_UNTRUSTED` or `CERTIFICATE_USAGE`.
    """
    raw = [_bytes(path) for path in (ca, cert, key)]
    authorities, chain = load(raw[0], ca), load(raw[1], cert)
    leaf = chain[0]
    _check_key(leaf, cert, raw[2], key)
    moment = datetime.fromtimestamp(now, UTC)
    for path, listed in ((cert, chain), (ca, authorities)):
        for one in listed:
            check_dates(one, f"The certificate of {subject(one)} in {path}", moment)
    _check_trust(chain, authorities, cert, ca)
    if usage is not None:
        _check_usage(leaf, cert, usage)
    return Material(raw[0], raw[1], raw[2], leaf.not_valid_after_utc.timestamp())


def load(raw: bytes, path: Path) -> list[x509.Certificate]:
    """Returns the certificates in the PEM of a file. Raises `InvalidArgument` `TLS_FILE_MALFORMED`."""
    try:
        return x509.load_pem_x509_certificates(raw)
    except ValueError as error:
        raise _malformed(path, "no certificate in PEM form", str(error)) from error


def check_dates(one: x509.Certificate, which: str, now: datetime) -> None:
    """Raises `FailedPrecondition` `CERTIFICATE_EXPIRED` or `CERTIFICATE_NOT_YET_VALID` for a certificate, `which`."""
    if now > one.not_valid_after_utc:
        raise FailedPrecondition(
            f"{which} expired at {stamp(one.not_valid_after_utc)}.",
            reason="CERTIFICATE_EXPIRED",
            next_step="Make a new one: `lamina ca renew NAME`, or `lamina ca init` for an authority.",
        )
    if now < one.not_valid_before_utc:
        raise FailedPrecondition(
            f"{which} is not valid before {stamp(one.not_valid_before_utc)}; it is now {stamp(now)}.",
            reason="CERTIFICATE_NOT_YET_VALID",
            next_step="Set the clocks of both machines right, or wait.",
        )


def subject(one: x509.Certificate) -> str:
    """Returns the common name of a certificate, or its whole subject when it has none."""
    names = one.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else one.subject.rfc4514_string() or "nobody"


def sans(one: x509.Certificate) -> list[str]:
    """Returns the names and addresses that a certificate stands for."""
    try:
        found = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(entry.value) for entry in found]


def stamp(moment: datetime) -> str:
    """Returns a time in UTC for people, to the second."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.", reason="TLS_FILE_MISSING", next_step=_ISSUE) from None
    except OSError as error:
        raise PermissionDenied(
            f"{path} cannot be read: {error.strerror}.",
            reason="TLS_FILE_UNREADABLE",
            next_step="Give the user that Lamina runs as the right to read it.",
        ) from error
    if len(raw) > MAX_FILE:
        raise _malformed(path, f"more than {MAX_FILE} bytes", "it is no certificate and no key")
    return raw


def _check_key(leaf: x509.Certificate, cert: Path, raw: bytes, path: Path) -> None:
    try:
        key = serialization.load_pem_private_key(raw, None)
    except TypeError as error:
        raise _malformed(path, "an encrypted key", "nobody is there to type its passphrase") from error
    except ValueError as error:
        raise _malformed(path, "no private key in PEM form", str(error)) from error
    if key.public_key() != leaf.public_key():
        raise FailedPrecondition(
            f"The key in {path} is not that of the certificate in {cert}.",
            reason="CERTIFICATE_KEY_MISMATCH",
            next_step="Name the two files that were made together, the certificate itself first in its file.",
        )


def _check_trust(chain: list[x509.Certificate], authorities: list[x509.Certificate], cert: Path, ca: Path) -> None:
    current = chain[0]
    for _ in range(MAX_CHAIN):
        if any(_issued(current, authority) for authority in authorities):
            return
        above = next((one for one in chain[1:] if one != current and _issued(current, one)), None)
        if above is None:
            break
        current = above
    raise FailedPrecondition(
        f"The certificate of {subject(chain[0])} in {cert} was not issued by an authority in {ca}: its issuer is "
        f"{current.issuer.rfc4514_string()}.",
        reason="CERTIFICATE_UNTRUSTED",
        next_step="Use the ca.pem that was written beside the certificate, or have that authority issue one.",
    )


def _issued(one: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_usage(leaf: x509.Certificate, cert: Path, usage: Usage) -> None:
    try:
        allowed = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # RFC 5280, 4.2.1.12: without the extension a certificate serves any purpose
    if _USAGES[usage] not in allowed:
        raise FailedPrecondition(
            f"The certificate of {subject(leaf)} in {cert} may not be used by a {usage}.",
            reason="CERTIFICATE_USAGE",
            next_step=f"Issue one for serverAuth and clientAuth. {_ISSUE}",
        )


def _malformed(path: Path, what: str, why: str) -> LaminaError:
    return InvalidArgument(
        f"{path} holds {what}: {why}.",
        reason="TLS_FILE_MALFORMED",
        next_step="Check that the file is the right one and complete.",
    )
