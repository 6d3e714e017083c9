"""What goes to an OpenTelemetry collector has the form that its specification asks for."""

from __future__ import annotations

import json
from typing import Any

from lamina_kit.operations.otlp import Exported, Resource, Snapshot, metrics, traces
from lamina_kit.telemetry.metrics import Family, Registry, by_label, counter, gauge
from lamina_kit.telemetry.trace import SpanRecord

EPOCH = 1_767_225_600 * 10**9
MMU = Resource("mmu", "h1", "1.2")


def span(
    name: str = "lamina.mmu.v1.Spaces/Fault", status: str = "OK", parent: str = "c" * 16, **more: str
) -> SpanRecord:
    """Returns a span."""
    return SpanRecord("a" * 32, "b" * 16, parent, "mmu", name, 5, 7, status, tuple(sorted(more.items())), 1)


def only(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the only span of a request."""
    (resource,) = body["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    (found,) = scope["spans"]
    result: dict[str, Any] = found
    return result


def test_a_call_s_span_keeps_ids_times_and_attributes() -> None:
    """Ids are hexadecimal, 64-bit numbers are texts, enums are numbers; nothing else is a number."""
    assert only(traces([Exported(MMU, span(frame="7"), EPOCH)])) == {
        "traceId": "a" * 32,
        "spanId": "b" * 16,
        "parentSpanId": "c" * 16,
        "name": "lamina.mmu.v1.Spaces/Fault",
        "kind": 2,
        "startTimeUnixNano": "1767225600000000005",
        "endTimeUnixNano": "1767225600000000012",
        "attributes": [
            {"key": "rpc.system", "value": {"stringValue": "grpc"}},
            {"key": "rpc.service", "value": {"stringValue": "lamina.mmu.v1.Spaces"}},
            {"key": "rpc.method", "value": {"stringValue": "Fault"}},
            {"key": "frame", "value": {"stringValue": "7"}},
            {"key": "rpc.grpc.status_code", "value": {"intValue": "0"}},
        ],
        "status": {},
    }


def test_a_failed_span_has_the_status_error_and_the_name_of_its_code() -> None:
    """The code stands in the message, and for calls as a number beside."""
    found = only(traces([Exported(MMU, span(status="NOT_FOUND"), EPOCH)]))
    assert found["status"] == {"code": 2, "message": "NOT_FOUND"}
    assert {"key": "rpc.grpc.status_code", "value": {"intValue": "5"}} in found["attributes"]


def test_a_root_has_no_parent_and_inner_work_is_internal() -> None:
    """An empty parent is left out; a span that is no call is of kind INTERNAL and has no call's attributes."""
    found = only(traces([Exported(MMU, span("fault.swap_in", parent=""), EPOCH)]))
    assert "parentSpanId" not in found
    assert (found["kind"], found["attributes"]) == (1, [])


def test_spans_are_grouped_by_the_layer_that_made_them() -> None:
    """Each layer of each host is a resource of its own; the orchestrator has no host."""
    whole = Resource("orchestrator", "", "1.2")
    body = traces([Exported(r, span(), EPOCH) for r in (MMU, whole, MMU)])
    counts = [len(found["scopeSpans"][0]["spans"]) for found in body["resourceSpans"]]
    assert counts == [2, 1]
    of_mmu, of_whole = (
        {entry["key"]: entry["value"]["stringValue"] for entry in found["resource"]["attributes"]}
        for found in body["resourceSpans"]
    )
    assert of_mmu == {
        "service.namespace": "lamina",
        "service.name": "mmu",
        "service.instance.id": "h1/mmu",
        "service.version": "1.2",
        "host.name": "h1",
    }
    assert (of_whole["service.instance.id"], "host.name" in of_whole) == ("orchestrator", False)


def metric(family: Family) -> dict[str, Any]:
    """Returns one family as it is exported."""
    (resource,) = metrics([Snapshot(MMU, [family], EPOCH, EPOCH + 9)])["resourceMetrics"]
    (found,) = resource["scopeMetrics"][0]["metrics"]
    result: dict[str, Any] = found
    return result


def test_a_counter_is_a_cumulative_sum_since_the_start() -> None:
    """Integers are texts; the labels of the resource are not repeated."""
    registry = Registry(layer="mmu", host="h1")
    registry.add(lambda: [by_label("lamina_calls_total", "Calls.", "code", {"OK": 2**60}, "counter")])
    found = metric(registry.families()[0])
    assert found == {
        "name": "lamina_calls_total",
        "description": "Calls.",
        "unit": "1",
        "sum": {
            "aggregationTemporality": 2,
            "isMonotonic": True,
            "dataPoints": [
                {
                    "attributes": [{"key": "code", "value": {"stringValue": "OK"}}],
                    "startTimeUnixNano": "1767225600000000000",
                    "timeUnixNano": "1767225600000000009",
                    "asInt": "1152921504606846976",
                }
            ],
        },
    }


def test_a_gauge_is_of_the_moment() -> None:
    """It has no start; a number with a fraction is a double, one that JSON has no form for is a text."""
    assert metric(gauge("lamina_load", "Load.", 0.5))["gauge"]["dataPoints"] == [
        {"attributes": [], "timeUnixNano": "1767225600000000009", "asDouble": 0.5}
    ]
    (point,) = metric(gauge("lamina_load", "Load.", float("nan")))["gauge"]["dataPoints"]
    assert json.loads(json.dumps(point, allow_nan=False))["asDouble"] == "NaN"


def test_a_histogram_has_a_bucket_more_than_bounds() -> None:
    """Bounds and sum are in seconds, counts are texts and not cumulative, and the unit is named."""
    registry = Registry()
    took = registry.histogram("lamina_wait_seconds", "Waits.", bounds=(10**6, 10**9))
    for value in (1, 2, 2 * 10**9):
        took.record(value)
    found = metric(registry.families()[1])
    (point,) = found["histogram"]["dataPoints"]
    assert (found["unit"], found["histogram"]["aggregationTemporality"]) == ("s", 2)
    assert (point["count"], point["bucketCounts"], point["explicitBounds"]) == ("3", ["2", "0", "1"], [0.001, 1.0])
    assert point["sum"] == 2.000000003


def test_units_follow_from_names() -> None:
    """`_bytes` is By, also before `_total`."""
    assert metric(counter("lamina_read_bytes_total", "Read.", 1))["unit"] == "By"
