"""The section `operations`: what stands above what, and which mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lamina_kit.errors import InvalidArgument
from lamina_kit.operations.settings import OperationsConfig, address, changed, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file with some of the section."""
    path = tmp_path / "lamina.toml"
    path.write_text('[operations]\nlog_format = "json"\notlp_endpoint = "http://file:4318"\n')
    return path


def test_without_anything_the_defaults_hold() -> None:
    """Console logs from `info`, no metrics, no export."""
    found = load(None, {})
    assert found == OperationsConfig()
    assert (found.endpoint("traces"), found.metrics_listen) == ("", None)


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({}, {}, "json"),
        ({"LAMINA_LOG_FORMAT": "console"}, {}, "console"),
        ({"LAMINA_OPERATIONS_LOG_FORMAT": "console"}, {}, "console"),
        ({"LAMINA_LOG_FORMAT": "console"}, {"log_format": "json"}, "json"),
        ({}, {"log_format": None}, "json"),
    ],
)
def test_flags_stand_above_variables_and_those_above_the_file(
    file: Path, environ: dict[str, str], flags: dict[str, Any], expected: str
) -> None:
    """A flag that was not given says nothing."""
    assert load(file, environ, flags).log_format == expected


def test_the_variables_of_opentelemetry_stand_below_the_file(file: Path) -> None:
    """What many programs of a machine share is the default; what is written for Lamina wins."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://shared:4318/", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    assert load(None, environ).endpoint("traces") == "http://shared:4318/v1/traces"
    assert load(file, environ).endpoint("metrics") == "http://file:4318/v1/metrics"
    assert load(file, environ).otlp_compression == "gzip"


def test_an_endpoint_of_one_signal_is_taken_as_it_is() -> None:
    """The base gets a path added, the endpoint of a signal does not."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://base:4318/otlp",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces:9/x",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc, x-tenant=1",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }
    found = load(None, environ)
    assert found.endpoint("traces") == "https://traces:9/x"
    assert found.endpoint("metrics") == "http://base:4318/otlp/v1/metrics"
    assert found.headers() == {"authorization": "Bearer abc", "x-tenant": "1"}
    assert (found.otlp_timeout_ms, found.otlp_interval_ms) == (2500, 5000)


def test_secrets_are_not_shown() -> None:
    """Headers carry keys; a report of changes says only that there are some."""
    found = load(None, {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret"})
    assert found.shown("otlp_headers") == "(hidden)"
    assert OperationsConfig().shown("otlp_headers") == ""


@pytest.mark.parametrize(
    ("environ", "reason", "named"),
    [
        ({"LAMINA_LOG_LEVEL": "loud"}, "CONFIG_WRONG_TYPE", "LAMINA_LOG_LEVEL"),
        ({"LAMINA_LOG_FORMAT": "xml"}, "CONFIG_WRONG_TYPE", "LAMINA_LOG_FORMAT"),
        ({"LAMINA_OPERATIONS_LOG_FROMAT": "json"}, "CONFIG_UNKNOWN_KEY", "LAMINA_OPERATIONS_LOG_FROMAT"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "CONFIG_WRONG_TYPE", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "0"}, "OPERATIONS_INVALID", "otlp_timeout_ms"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OPERATIONS_INVALID", "otlp_endpoint"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:99999"}, "OPERATIONS_INVALID", "otlp_endpoint"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "novalue"}, "OPERATIONS_INVALID", "otlp_headers"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "k=a%0d%0ab"}, "OPERATIONS_INVALID", "otlp_headers"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere"}, "OPERATIONS_INVALID", "otlp_certificate"),
        ({"LAMINA_METRICS_LISTEN": "9464"}, "METRICS_ADDRESS", "9464"),
        ({"LAMINA_METRICS_LISTEN": "0.0.0.0:9464"}, "METRICS_NOT_LOOPBACK", "0.0.0.0:9464"),
    ],
)
def test_a_mistake_names_what_is_wrong(environ: dict[str, str], reason: str, named: str) -> None:
    """The variable that was set, or the field, stands in the error."""
    with pytest.raises(InvalidArgument) as caught:
        load(None, environ)
    assert caught.value.reason == reason
    assert named in f"{caught.value.message} {[v.field for v in caught.value.violations]}"


def test_a_protocol_that_we_do_not_speak_is_refused_when_it_matters() -> None:
    """gRPC is another port; without an endpoint the variable concerns others."""
    assert load(None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) == OperationsConfig()
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4317"}
    with pytest.raises(InvalidArgument) as caught:
        load(None, environ)
    assert caught.value.reason == "OTLP_PROTOCOL_UNSUPPORTED"
    assert "4318" in caught.value.next_step


@pytest.mark.parametrize(
    ("text", "remote", "offset", "expected"),
    [
        ("127.0.0.1:9464", False, 0, ("127.0.0.1", 9464)),
        ("localhost:9464", False, 5, ("localhost", 9469)),
        ("[::1]:0", False, 5, ("::1", 0)),
        ("0.0.0.0:9464", True, 0, ("0.0.0.0", 9464)),
        ("metrics.example:9464", True, 0, ("metrics.example", 9464)),
    ],
)
def test_addresses_that_may_be_served(text: str, remote: bool, offset: int, expected: tuple[str, int]) -> None:
    """Loopback always, others when they are allowed; an offset is added, but not to "any free port"."""
    assert address(text, remote, offset) == expected


@pytest.mark.parametrize("text", ["", ":9464", "h:", "h:65536", "h:-1", "h:x", "h:123456"])
def test_addresses_that_are_none(text: str) -> None:
    """Each is refused with a next step."""
    with pytest.raises(InvalidArgument) as caught:
        address(text, remote=True)
    assert (caught.value.reason, bool(caught.value.next_step)) == ("METRICS_ADDRESS", True)


def test_a_port_beyond_the_last_one_is_refused() -> None:
    """Six processes need six ports."""
    with pytest.raises(InvalidArgument):
        address("127.0.0.1:65531", offset=5)


def test_what_changed_is_listed_in_the_order_of_declaration() -> None:
    """Equal sections differ in nothing."""
    new = load(None, {"LAMINA_LOG_LEVEL": "debug", "LAMINA_METRICS_LISTEN": "127.0.0.1:1"})
    assert changed(OperationsConfig(), new) == ["log_level", "metrics_listen"]
    assert changed(new, new) == []
