"""What the hardware layer tells of itself in numbers, when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lamina_kit.bus.run_page import ExitReason
from lamina_kit.telemetry.metrics import NS, Family, Sample, by_label, counter, gauge, tally

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine


def families(machine: Machine) -> Iterable[Family]:
    """Yields cores, RAM, contexts and what the cores did since the machine's start; nothing while it has no power."""
    if not machine.is_on:
        return
    arbiter, engine = machine.engine.arbiter, machine.engine
    states = ("lost" if arbiter.lost[n] else "busy" if run else "idle" for n, run in enumerate(arbiter.running))
    yield by_label("lamina_hardware_cores", "Cores by state.", "state", tally(states, ("busy", "idle", "lost")))
    yield gauge("lamina_hardware_memory_bytes", "RAM of the host.", machine.bus.size)
    yield gauge("lamina_hardware_contexts", "Execution contexts.", len(engine.contexts.entries()))
    yield gauge("lamina_hardware_run_groups", "Run groups.", len(engine.groups.entries()))
    total = engine.totals(machine.dispatcher.counts)
    exits = {ExitReason(reason).name.lower(): count for reason, count in enumerate(total.exits) if count}
    yield by_label("lamina_hardware_exits_total", "Exits of contexts by reason.", "reason", exits, "counter")
    yield counter("lamina_hardware_instructions_total", "Instructions that cores executed.", total.instructions)
    yield counter(
        "lamina_hardware_tlb_fills_total", "Translations that were looked up in page tables.", total.event("tlb_fills")
    )
    yield counter("lamina_hardware_shootdowns_total", "Translations that cores were told to forget.", total.shootdowns)
    text = "Time that contexts ran on cores."
    yield Family("lamina_hardware_run_seconds_total", "counter", text, (Sample((), total.run_time_ns),), scale=NS)
    text = "Time that contexts waited for a core."
    yield Family("lamina_hardware_wait_seconds_total", "counter", text, (Sample((), total.wait_time_ns),), scale=NS)
    yield from _devices(machine)


def _devices(machine: Machine) -> Iterable[Family]:
    """Yields what devices did, by the name of each."""
    devices = machine.devices
    listed = devices.table.entries()
    moved = {device.id: device.transfers for device in listed}
    yield by_label("lamina_hardware_dma_transfers_total", "DMA transfers of devices.", "device", moved, "counter")
    refused = {device.id: device.faults for device in listed}
    text = "DMA transfers that the IOMMU refused."
    yield by_label("lamina_hardware_dma_faults_total", text, "device", refused, "counter")
    yield gauge("lamina_hardware_dma_domains", "DMA domains of the IOMMU.", len(devices.iommu.domains()))
    yield gauge("lamina_hardware_dirty_logs", "Logs of written frames.", len(machine.dirty_logs.logs.entries()))
