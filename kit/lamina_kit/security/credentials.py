"""Certificates as gRPC takes them.

Files are read again when they have changed: a server does so before each handshake, a channel before a call
(`renewed_channel.py`), so that a renewed certificate needs no restart. What cannot be used then is logged, and the
certificate at hand goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from lamina_kit.errors import LaminaError
from lamina_kit.security.transport import TlsFiles
from lamina_kit.telemetry import log

if TYPE_CHECKING:
    from lamina_kit.security.certificates import Material


def of_server(files: TlsFiles) -> Any:
    """Returns gRPC credentials of a server that demands certificates of its clients.

    Raises as `certificates.read` for what cannot work.
    """
    renewal = _Renewal(files)  # before the files are read: what changes meanwhile is seen at the first handshake
    first = _configuration(files.read("server"))
    return grpc.dynamic_ssl_server_credentials(first, renewal, require_client_authentication=True)


def of_channel(files: TlsFiles) -> Any:
    """Returns gRPC credentials of a client with a certificate. Raises as `certificates.read`."""
    material = files.read("client")
    return grpc.ssl_channel_credentials(material.ca, material.key, material.cert)


def _configuration(material: Material) -> Any:
    return grpc.ssl_server_certificate_configuration([(material.key, material.cert)], material.ca)


class _Renewal:
    """Called by gRPC before each handshake, in threads of its own: returns what is new on disk, or None."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = files.stamp()
        self._log = log.logger("tls")

    def __call__(self) -> Any:
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            material = self._files.read("server")
        except LaminaError as error:
            # The files may be half written: the certificate at hand goes on, and the next change is looked at again.
            self._log.error("certificate.not_taken", reason=error.reason, message=error.message)
            return None
        self._log.info("certificate.renewed", file=str(self._files.cert))
        return _configuration(material)
