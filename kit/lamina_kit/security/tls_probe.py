"""Why no connection stands. gRPC says "Socket closed" for every handshake that fails, so one is made once more.

`diagnose` connects to the address as a channel would, with the machine's OpenSSL, and returns an error that says what
is wrong with which certificate. A server that refuses ours closes the connection without a word (TLS 1.3 has the
client's certificate checked after the client's last message), which tells it apart from one that gRPC cannot use.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lamina_kit.errors import LaminaError, Unavailable
from lamina_kit.security.transport import TLS, Security, bare

if TYPE_CHECKING:
    from cryptography import x509

TIMEOUT_S = 3.0
_EXPIRED, _NOT_YET, _NAME, _ADDRESS = 10, 9, 62, 64
_UNTRUSTED = (2, 18, 19, 20, 21)
"""Verification results. Source: openssl-verification-options(1), X509_V_ERR_*."""


async def diagnose(target: str, security: Security) -> LaminaError | None:
    """Returns why TLS keeps a client from an address; None when it does not, or nobody is there at all."""
    if target.startswith("unix:"):
        return None
    return await asyncio.to_thread(_diagnose, target, security)


def _diagnose(target: str, security: Security) -> LaminaError | None:
    try:
        if not security.encrypts(target):
            return _plain(target)
        assert security.tls is not None
        security.tls.read("client")
        return _encrypted(target, security)
    except LaminaError as error:  # our own files, or an address that we may not talk to
        return error
    except (OSError, UnicodeError):
        return None  # nobody is there, or can be under such a name: gRPC says so itself


def _plain(target: str) -> LaminaError | None:
    """Returns an error when a server that we talk to in the clear wants TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(_place(target), TIMEOUT_S) as connection:
        try:
            with context.wrap_socket(connection):
                pass
        except (ssl.SSLError, OSError):
            return None
    return _error(
        f"The server at {target} wants TLS, and this side speaks plain.",
        "PEER_WANTS_TLS",
        f"Call it as {TLS}{target}, with --tls-dir.",
    )


def _encrypted(target: str, security: Security) -> LaminaError | None:
    assert security.tls is not None
    files = security.tls
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2"])
    host, port = _place(target)
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        try:
            with context.wrap_socket(connection, server_hostname=host) as tls:
                if _answers(tls):
                    return None
        except ssl.SSLCertVerificationError as error:
            return _distrusted(target, error, _presented(target), security)
        except ssl.SSLError as error:
            return _error(
                f"The server at {target} does not speak TLS: {error.reason or error}.",
                "PEER_WITHOUT_TLS",
                "Give it --tls-dir too, or check that the address is the one you mean.",
            )
    return _error(
        f"The server at {target} refuses the certificate in {files.cert}, which is valid here.",
        "CERTIFICATE_REFUSED",
        "Issue it by the authority that the server knows, and compare the clocks of both machines.",
    )


def _answers(tls: ssl.SSLSocket) -> bool:
    """Says whether the server says anything after the handshake, as every HTTP/2 server does that takes the client."""
    try:
        return bool(tls.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def _presented(target: str) -> x509.Certificate | None:
    """Returns the certificate that a server shows, without trusting it."""
    from cryptography import x509  # only who has to explain a failure loads it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(_place(target), TIMEOUT_S) as connection,
            context.wrap_socket(connection) as tls,
        ):
            raw = tls.getpeercert(binary_form=True)
    except OSError:
        return None
    return x509.load_der_x509_certificate(raw) if raw else None


def _distrusted(
    target: str, error: ssl.SSLCertVerificationError, shown: x509.Certificate | None, security: Security
) -> LaminaError:
    """Returns what OpenSSL holds against the certificate of a server."""
    from lamina_kit.security import certificates

    assert security.tls is not None
    who = f"The server at {target}"
    name = f"the certificate of {certificates.subject(shown)}" if shown is not None else "a certificate"
    now = datetime.fromtimestamp(time.time(), UTC)
    if error.verify_code == _EXPIRED:
        when = f" at {certificates.stamp(shown.not_valid_after_utc)}" if shown is not None else ""
        text = f"{who} shows {name}, which expired{when}; it is now {certificates.stamp(now)}."
        return _error(text, "CERTIFICATE_EXPIRED", "Renew it on that side: `lamina ca renew NAME`.")
    if error.verify_code == _NOT_YET:
        when = f" before {certificates.stamp(shown.not_valid_before_utc)}" if shown is not None else " yet"
        text = f"{who} shows {name}, which is not valid{when}; it is now {certificates.stamp(now)}."
        return _error(text, "CERTIFICATE_NOT_YET_VALID", "Set the clocks of both machines right.")
    if error.verify_code in (_NAME, _ADDRESS):
        stands = ", ".join(certificates.sans(shown)) if shown is not None else ""
        text = f"{who} shows {name}, which stands for {stands or 'other names'}, not for {_place(target)[0]}."
        step = f"Issue it anew with --san {_place(target)[0]}, or call the server by a name that it has."
        return _error(text, "CERTIFICATE_NAME_MISMATCH", step)
    if error.verify_code in _UNTRUSTED:
        by = f", issued by {shown.issuer.rfc4514_string()}" if shown is not None else ""
        text = f"{who} shows {name}{by}, which is no authority in {security.tls.ca}."
        return _error(text, "CERTIFICATE_UNTRUSTED", "Have both sides' certificates issued by one authority.")
    return _error(
        f"{who} shows {name}, which does not hold: {error.verify_message}.",
        "CERTIFICATE_INVALID",
        "Issue it anew: `lamina ca issue NAME --san HOST`.",
    )


def _error(message: str, reason: str, next_step: str) -> LaminaError:
    """Returns an error of the other side, which may be mended while this one waits."""
    return Unavailable(message, reason=reason, next_step=next_step)


def _place(target: str) -> tuple[str, int]:
    host, _, port = bare(target).rpartition(":")
    return host.strip("[]"), int(port)
