"""Spans and metrics as OTLP/HTTP wants them in JSON. Pure.

The encoding is protobuf's JSON mapping with two differences: trace and span ids are hexadecimal, and enums are numbers.
64-bit integers are decimal texts.
Sources: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
         https://github.com/open-telemetry/opentelemetry-proto/tree/v1.3.2/opentelemetry/proto
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina_kit.telemetry.metrics import Distribution, Family, Labels
from lamina_kit.telemetry.trace import SpanRecord

INTERNAL, SERVER = 1, 2
"""`Span.SpanKind`."""
ERROR = 2
"""`Status.StatusCode`; a span that succeeded has none."""
CUMULATIVE = 2
"""`AggregationTemporality`."""
RPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""Names of the gRPC codes by number."""
UNITS = {"_seconds": "s", "_bytes": "By"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """Who a span or a value is from: one layer on one host; `host` is empty for the orchestrator."""

    layer: str
    host: str
    version: str

    def encoded(self) -> Json:
        """Returns it in the words of OpenTelemetry."""
        values = {
            "service.namespace": "lamina",
            "service.name": self.layer,
            "service.instance.id": f"{self.host}/{self.layer}" if self.host else self.layer,
            "service.version": self.version,
        }
        if self.host:
            values["host.name"] = self.host
        return {"attributes": attributes(values)}


@dataclass(frozen=True)
class Exported:
    """A span on its way out; `epoch_ns` is the Unix time at which its layer's clock showed 0."""

    resource: Resource
    span: SpanRecord
    epoch_ns: int


@dataclass(frozen=True)
class Snapshot:
    """The metrics of one layer at one moment; times in Unix nanoseconds."""

    resource: Resource
    families: Sequence[Family]
    start_ns: int
    time_ns: int


def attributes(values: Mapping[str, str | int]) -> list[Json]:
    """Returns attributes as key-value pairs, texts and integers."""
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
    ]


def traces(spans: Iterable[Exported]) -> Json:
    """Returns an `ExportTraceServiceRequest`; spans keep their order within their resource."""
    grouped: dict[Resource, list[Json]] = {}
    for exported in spans:
        grouped.setdefault(exported.resource, []).append(_span(exported.span, exported.epoch_ns))
    return {
        "resourceSpans": [
            {
                "resource": resource.encoded(),
                "scopeSpans": [{"scope": {"name": "lamina_kit.trace", "version": resource.version}, "spans": found}],
            }
            for resource, found in grouped.items()
        ]
    }


def metrics(snapshots: Iterable[Snapshot]) -> Json:
    """Returns an `ExportMetricsServiceRequest` of cumulative values."""
    return {
        "resourceMetrics": [
            {
                "resource": snapshot.resource.encoded(),
                "scopeMetrics": [
                    {
                        "scope": {"name": "lamina_kit.telemetry.metrics", "version": snapshot.resource.version},
                        "metrics": [
                            _metric(family, snapshot)
                            for family in snapshot.families
                            if family.samples or family.distributions
                        ],
                    }
                ],
            }
            for snapshot in snapshots
        ]
    }


def _span(span: SpanRecord, epoch_ns: int) -> Json:
    values: dict[str, str | int] = dict(span.attributes)
    service, slash, method = span.name.rpartition("/")
    is_call = bool(slash) and "." in service
    if is_call:
        values = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, **values}
        if span.status in RPC_CODES:
            values["rpc.grpc.status_code"] = RPC_CODES.index(span.status)
    start = epoch_ns + span.start_time_ns
    found: Json = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": SERVER if is_call else INTERNAL,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + span.duration_ns),
        "attributes": attributes(values),
        "status": {} if span.status == "OK" else {"code": ERROR, "message": span.status},
    }
    if span.parent_span_id:
        found["parentSpanId"] = span.parent_span_id
    return found


def _metric(family: Family, snapshot: Snapshot) -> Json:
    unit = next((unit for end, unit in UNITS.items() if family.name.removesuffix("_total").endswith(end)), "1")
    found: Json = {"name": family.name, "description": family.help, "unit": unit}
    start = {"startTimeUnixNano": str(snapshot.start_ns)}
    time = {"timeUnixNano": str(snapshot.time_ns)}
    if family.kind == "histogram":
        points = [_distribution(family, each, {**start, **time}) for each in family.distributions]
        return {**found, "histogram": {"aggregationTemporality": CUMULATIVE, "dataPoints": points}}
    times = time if family.kind == "gauge" else {**start, **time}
    points = [
        {"attributes": _labels(sample.labels), **times, **_number(sample.value, family.scale)}
        for sample in family.samples
    ]
    if family.kind == "gauge":
        return {**found, "gauge": {"dataPoints": points}}
    return {**found, "sum": {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": points}}


def _distribution(family: Family, found: Distribution, times: Json) -> Json:
    return {
        "attributes": _labels(found.labels),
        **times,
        "count": str(found.count),
        "sum": found.sum / family.scale,
        "bucketCounts": [str(count) for count in found.counts],
        "explicitBounds": [bound / family.scale for bound in family.bounds],
    }


def _labels(labels: Labels) -> list[Json]:
    """Returns labels as attributes; the layer and the host are the resource's."""
    return attributes({name: value for name, value in labels if name not in ("layer", "host")})


def _number(value: int | float, scale: int) -> Json:
    if isinstance(value, int) and scale == 1:
        return {"asInt": str(value)}
    number = value / scale
    if math.isnan(number):
        return {"asDouble": "NaN"}
    return {"asDouble": number if math.isfinite(number) else "Infinity" if number > 0 else "-Infinity"}
