"""The section `operations` of the configuration: logs, metrics and export, the same for every process.

    [operations]
    log_format = "json"
    metrics_listen = "127.0.0.1:9464"
    otlp_endpoint = "http://127.0.0.1:4318"

From the lowest to the highest: defaults, the variables of OpenTelemetry, the file, `LAMINA_OPERATIONS_<KEY>` or its
short name (`LAMINA_LOG_FORMAT`), flags. All of it is applied anew at a reload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from lamina_kit import config
from lamina_kit.checks import Checks, shown
from lamina_kit.errors import InvalidArgument
from lamina_kit.security.callers import uid_of
from lamina_kit.security.transport import is_loopback

SECTION = "operations"
SHORT = {
    "log_level": "LAMINA_LOG_LEVEL",
    "log_format": "LAMINA_LOG_FORMAT",
    "metrics_listen": "LAMINA_METRICS_LISTEN",
    "metrics_remote": "LAMINA_METRICS_REMOTE",
    "allow_users": "LAMINA_ALLOW_USERS",
}
"""Short names of variables."""
STANDARD = {
    "otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "otlp_traces_endpoint": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "otlp_metrics_endpoint": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "otlp_headers": "OTEL_EXPORTER_OTLP_HEADERS",
    "otlp_timeout_ms": "OTEL_EXPORTER_OTLP_TIMEOUT",
    "otlp_compression": "OTEL_EXPORTER_OTLP_COMPRESSION",
    "otlp_certificate": "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "otlp_interval_ms": "OTEL_METRIC_EXPORT_INTERVAL",
}
"""The variables of OpenTelemetry. https://opentelemetry.io/docs/specs/otel/protocol/exporter/"""
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
PROTOCOLS = ("http/json", "http/protobuf")
"""Both mean the same address; we send JSON to it. gRPC is another service on another port."""
SECRET = ("otlp_headers",)
"""Fields whose values are never shown."""
MAX_PORT = 65535


@dataclass(frozen=True)
class OperationsConfig:
    """What an operator sets. Every value can change while the process runs.

    `metrics_listen` is the HOST:PORT of the endpoint for Prometheus; beyond this machine only with `metrics_remote`: it
    is neither encrypted nor asks who is there. `otlp_endpoint` is the base URL of an OpenTelemetry collector, to which
    `/v1/traces` and `/v1/metrics` are added; the other two are whole URLs and stand above it. `otlp_headers` are
    KEY=VALUE, percent-encoded. `otlp_certificate` is the file of the authorities that a collector's certificate must be
    from. `otlp_interval_ms` is the pause between two exports of metrics. `allow_users` are the users
    of this machine, by name or number, who may call beside the services' own user and root (`security/callers.py`).
    """

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    metrics_listen: str | None = None
    metrics_remote: bool = False
    otlp_endpoint: str | None = None
    otlp_traces_endpoint: str | None = None
    otlp_metrics_endpoint: str | None = None
    otlp_headers: tuple[str, ...] = ()
    otlp_timeout_ms: int = 10_000
    otlp_compression: Literal["none", "gzip"] = "none"
    otlp_certificate: Path | None = None
    otlp_interval_ms: int = 60_000
    allow_users: tuple[str, ...] = ()

    def endpoint(self, signal: str) -> str:
        """Returns the URL for `traces` or `metrics`; empty when they are not exported."""
        own: str | None = getattr(self, f"otlp_{signal}_endpoint")
        return own or (f"{self.otlp_endpoint.rstrip('/')}/v1/{signal}" if self.otlp_endpoint else "")

    def headers(self) -> dict[str, str]:
        """Returns the headers of an export by their names."""
        return {key.strip(): unquote(value.strip()) for key, _, value in (h.partition("=") for h in self.otlp_headers)}

    def uids(self) -> frozenset[int]:
        """Returns the numbers of the users in `allow_users`."""
        return frozenset(uid for name in self.allow_users if (uid := uid_of(name)) is not None)

    def shown(self, key: str) -> str:
        """Returns a value as text that may be shown."""
        value = getattr(self, key)
        return "(hidden)" if key in SECRET and value else as_text(value)


def as_text(value: object) -> str:
    """Returns a configured value as one would write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> OperationsConfig:
    """Returns the section as it takes effect; `flags` are fields that were given on the command line.

    Raises as `config.load`, and `InvalidArgument` `OPERATIONS_INVALID`, `OTLP_PROTOCOL_UNSUPPORTED`, `METRICS_ADDRESS`
    or `METRICS_NOT_LOOPBACK`.
    """
    found = config.load(SECTION, OperationsConfig, file, environ)
    given = config.read_file(file).get(SECTION, {}) if file is not None else {}
    changes: dict[str, Any] = {}
    for key, variable in STANDARD.items():
        if environ.get(variable) and key not in given and _long(key) not in environ:
            text = _lower(environ[variable], key)
            changes[key] = config.from_text(OperationsConfig, key, text, variable)
    for key, variable in SHORT.items():
        if environ.get(variable) and _long(key) not in environ:
            changes[key] = config.from_text(OperationsConfig, key, environ[variable], variable)
    changes |= {key: value for key, value in (flags or {}).items() if value not in (None, "")}
    found = replace(found, **changes)
    protocol = environ.get(PROTOCOL, "")
    if protocol and protocol not in PROTOCOLS and (found.endpoint("traces") or found.endpoint("metrics")):
        raise InvalidArgument(
            f"{PROTOCOL} is {shown(protocol)}; Lamina exports by HTTP.",
            reason="OTLP_PROTOCOL_UNSUPPORTED",
            next_step="Set it to http/json, and the endpoint to the collector's HTTP port, by default 4318.",
        )
    _check(found)
    return found


def address(text: str, remote: bool = False, offset: int = 0) -> tuple[str, int]:
    """Returns host and port of an address to serve metrics on; `offset` is added to a port that is not 0.

    Raises `InvalidArgument` `METRICS_ADDRESS` for a malformed one, and `METRICS_NOT_LOOPBACK` for one that others reach
    without `remote`.
    """
    host, colon, digits = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    sound = bool(colon and host and digits.isascii() and digits.isdigit() and len(digits) <= 5)
    port = int(digits) if sound else -1
    port += offset if port > 0 else 0
    if not 0 <= port <= MAX_PORT:
        raise InvalidArgument(
            f"metrics_listen {shown(text)} is not HOST:PORT with a port up to {MAX_PORT - offset}.",
            reason="METRICS_ADDRESS",
            next_step="Give an address such as 127.0.0.1:9464.",
        )
    if not remote and not is_loopback(host):
        raise InvalidArgument(
            f"metrics_listen {shown(text)} can be reached from other machines, unencrypted and by anybody.",
            reason="METRICS_NOT_LOOPBACK",
            next_step="Choose 127.0.0.1, or allow it with --metrics-remote, LAMINA_METRICS_REMOTE=true or"
            " `metrics_remote = true`.",
        )
    return host, port


def changed(old: OperationsConfig, new: OperationsConfig) -> list[str]:
    """Returns the names of the fields that differ, in the order of their declaration."""
    return [entry.name for entry in fields(old) if getattr(old, entry.name) != getattr(new, entry.name)]


def _long(key: str) -> str:
    return f"{config.PREFIX}{SECTION.upper()}_{key.upper()}"


def _lower(text: str, key: str) -> str:
    return text.lower() if key == "otlp_compression" else text


def _check(found: OperationsConfig) -> None:
    with Checks("OPERATIONS_INVALID") as check:
        check.range("otlp_timeout_ms", found.otlp_timeout_ms, 1, 600_000)
        check.range("otlp_interval_ms", found.otlp_interval_ms, 100, 86_400_000)
        for key in ("otlp_endpoint", "otlp_traces_endpoint", "otlp_metrics_endpoint"):
            text = getattr(found, key)
            check.that(not text or _is_url(text), key, "is no http:// or https:// URL")
        for header in found.otlp_headers:
            name, equals, value = header.partition("=")
            text = unquote(value)
            sound = bool(equals) and name.strip().replace("-", "").isalnum() and text.isprintable() and text.isascii()
            check.that(sound and header.isascii(), "otlp_headers", "has an entry that is not KEY=VALUE")
        if found.otlp_certificate is not None:
            check.that(found.otlp_certificate.is_file(), "otlp_certificate", "names no file")
        for name in found.allow_users:
            check.that(uid_of(name) is not None, "allow_users", f"{shown(name)} names no user of this machine")
    if found.metrics_listen:
        address(found.metrics_listen, found.metrics_remote)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
