"""Why a VM and what it holds below changed: the trace of the call that started it, and of the one that stopped it."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kit.rng import Rng
from lamina_kit.telemetry import trace
from lamina_kit.telemetry.trace import Recorder, SpanRing

pytestmark = pytest.mark.asyncio(loop_scope="module")


def events(lab: Any, layer: str, cause: str) -> set[str]:
    """Returns the kinds of events of a layer that a trace caused."""
    return {entry.event for entry in lab.states[layer].events.list(limit=100_000) if entry.cause == cause}


async def test_a_vm_is_caused_by_its_start_and_its_end_by_the_stop(lab: Any) -> None:
    """Space and page faults have the start's trace, long after the call; what is given back has the stop's."""
    recorder = Recorder("test", lab.clock, Rng(5), SpanRing())
    name = await lab.create()
    with trace.begin("start", recorder, sampled=False) as start:
        await lab.start_vm(name)
    await lab.until(name, b"> ")
    with trace.begin("stop", recorder, sampled=False) as stop:
        await lab.stop_vm(name)
    assert events(lab, "hypervisor", start.trace_id) == {"vm.starting", "vm.running"}
    assert events(lab, "hypervisor", stop.trace_id) == {"vm.stopping", "vm.stopped"}
    assert {"space.created", "page.faulted"} <= events(lab, "mmu", start.trace_id)
    assert {"space.deleted", "frames.freed"} <= events(lab, "mmu", stop.trace_id)


async def test_a_recorded_start_ends_its_spans_with_the_call(lab: Any) -> None:
    """A VM that was started under a recorded trace runs on without adding spans to it."""
    recorder = Recorder("test", lab.clock, Rng(6), SpanRing())
    name = await lab.create()
    with trace.begin("start", recorder) as start:
        await lab.start_vm(name)
    spans = len(lab.states["mmu"].spans.list(start.trace_id))
    assert spans
    await lab.until(name, b"> ")
    assert len(lab.states["mmu"].spans.list(start.trace_id)) == spans
    assert "page.faulted" in events(lab, "mmu", start.trace_id)
    await lab.stop_vm(name)
