"""Exit controls between contract and domain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from lamina.hardware.v1 import exit_controls_pb2 as pb
from lamina.hardware.v1 import registers_pb2

from lamina_hardware.domain.contexts.exit_controls import (
    ALL_EXCEPTIONS,
    ControlRegisters,
    ExitControls,
    Instruction,
    PostedWrite,
)
from lamina_kit.checks import Checks

_PORTS, _MSRS = 1 << 16, 1 << 32
_MAX_RANGES, _MAX_SHADOWS, _MAX_DEVICES, _MAX_POSTED, _MAX_TARGETS = 256, 64, 64, 16, 4
_MAX_RANGE_MSRS, _MAX_DEVICE_BYTES, _GPA_END = 65536, 1 << 40, 1 << 48
_TIMER_NS = (1000, 3_600_000_000_000)
_SECOND_NS = 1_000_000_000
_SIZES = (0, 1, 2, 4, 8)


def exit_controls(message: pb.ExitControls) -> ExitControls:
    """Returns controls; raises `InvalidArgument` that names each wrong field."""
    with Checks() as check:
        check.range("controls.exceptions", message.exceptions, 0, ALL_EXCEPTIONS)
        instructions = _instructions(check, message.instructions)
        ports = _ports(check, message.ports)
        _check_msrs(check, message.msrs)
        _check_times(check, message)
        targets = message.control_registers.cr3_targets
        _most(check, "controls.control_registers.cr3_targets", targets, _MAX_TARGETS)
        devices = _devices(check, message.device_ranges)
        posted = _posted(check, message.posted_writes, devices)
    return ExitControls(
        exceptions=message.exceptions,
        page_fault_mask=message.page_fault_mask,
        page_fault_match=message.page_fault_match,
        instructions=instructions,
        all_ports=message.ports.all,
        ports=ports,
        all_msrs=message.msrs.all,
        msr_reads=_sorted((entry.first, entry.count) for entry in message.msrs.reads),
        msr_writes=_sorted((entry.first, entry.count) for entry in message.msrs.writes),
        shadows=_sorted((entry.number, entry.value) for entry in message.msrs.shadows),
        registers=_control_registers(message.control_registers),
        debug_registers=message.debug_registers,
        external_interrupts=message.external_interrupts,
        nmis=message.nmis,
        interrupt_window=message.interrupt_window,
        nmi_window=message.nmi_window,
        preemption_timer_ns=message.preemption_timer_ns,
        pause_gap_ns=message.pause_gap_ns,
        pause_window_ns=message.pause_window_ns,
        devices=devices,
        posted=posted,
    )


def exit_controls_message(found: ExitControls) -> pb.ExitControls:
    """Returns controls as a message; every list in the order of its numbers, and what is empty left out."""
    message = pb.ExitControls(
        exceptions=found.exceptions,
        page_fault_mask=found.page_fault_mask,
        page_fault_match=found.page_fault_match,
        instructions=[int(instruction) for instruction in found.instructions],  # type: ignore[misc]
        debug_registers=found.debug_registers,
        external_interrupts=found.external_interrupts,
        nmis=found.nmis,
        interrupt_window=found.interrupt_window,
        nmi_window=found.nmi_window,
        preemption_timer_ns=found.preemption_timer_ns,
        pause_gap_ns=found.pause_gap_ns,
        pause_window_ns=found.pause_window_ns,
        device_ranges=[pb.DeviceRange(gpa=gpa, size_bytes=size) for gpa, size in found.devices],
        posted_writes=[_posted_message(entry) for entry in found.posted],
    )
    ports = pb.PortControls(
        all=found.all_ports, ranges=[pb.PortRange(first=first, count=count) for first, count in found.ports]
    )
    msrs = pb.MsrControls(
        all=found.all_msrs,
        reads=[pb.MsrRange(first=first, count=count) for first, count in found.msr_reads],
        writes=[pb.MsrRange(first=first, count=count) for first, count in found.msr_writes],
        shadows=[registers_pb2.Msr(number=number, value=value) for number, value in found.shadows],
    )
    if ports.ByteSize():
        message.ports.CopyFrom(ports)
    if msrs.ByteSize():
        message.msrs.CopyFrom(msrs)
    if found.registers != ControlRegisters():
        message.control_registers.CopyFrom(_control_registers_message(found.registers))
    return message


def _control_registers_message(found: ControlRegisters) -> pb.ControlRegisterControls:
    return pb.ControlRegisterControls(
        cr0_mask=found.cr0_mask,
        cr0_shadow=found.cr0_shadow,
        cr4_mask=found.cr4_mask,
        cr4_shadow=found.cr4_shadow,
        cr3_writes=found.cr3_writes,
        cr3_reads=found.cr3_reads,
        cr3_targets=found.cr3_targets,
        cr8_writes=found.cr8_writes,
        cr8_reads=found.cr8_reads,
    )


def _most(check: Checks, field: str, entries: Sequence[object], most: int) -> None:
    check.that(len(entries) <= most, field, f"has {len(entries)} entries, more than {most}")


def _sorted(pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(pairs))


def _instructions(check: Checks, wanted: Iterable[int]) -> tuple[Instruction, ...]:
    numbers = list(wanted)
    for number in numbers:
        check.one_of("controls.instructions", number, tuple(int(known) for known in Instruction))
    check.that(len(set(numbers)) == len(numbers), "controls.instructions", "names an instruction twice")
    return tuple(sorted(known for known in Instruction if known in numbers))


def _apart(check: Checks, field: str, ranges: Sequence[tuple[int, int]]) -> None:
    """Wants ranges (first, count), ascending, that do not overlap."""
    for (first, count), (after, _) in pairwise(ranges):
        check.that(first + count <= after, field, f"has ranges that overlap at {after:#x}")


def _ports(check: Checks, message: pb.PortControls) -> tuple[tuple[int, int], ...]:
    field = "controls.ports.ranges"
    _most(check, field, message.ranges, _MAX_RANGES)
    check.that(not (message.all and message.ranges), field, "is not empty although `all` is set")
    for entry in message.ranges:
        check.range(f"{field}.first", entry.first, 0, _PORTS - 1)
        check.range(f"{field}.count", entry.count, 1, _PORTS - entry.first)
    ranges = _sorted((entry.first, entry.count) for entry in message.ranges)
    _apart(check, field, ranges)
    return ranges


def _check_msrs(check: Checks, message: pb.MsrControls) -> None:
    for name, ranges in (("reads", message.reads), ("writes", message.writes)):
        field = f"controls.msrs.{name}"
        _most(check, field, ranges, _MAX_RANGES)
        for entry in ranges:
            check.range(f"{field}.first", entry.first, 0, _MSRS - 1)
            check.range(f"{field}.count", entry.count, 1, min(_MAX_RANGE_MSRS, _MSRS - min(entry.first, _MSRS - 1)))
        _apart(check, field, _sorted((entry.first, entry.count) for entry in ranges))
    listed = bool(message.reads or message.writes or message.shadows)
    check.that(not (message.all and listed), "controls.msrs", "has lists although `all` is set")
    _most(check, "controls.msrs.shadows", message.shadows, _MAX_SHADOWS)
    numbers = [entry.number for entry in message.shadows]
    check.that(len(set(numbers)) == len(numbers), "controls.msrs.shadows", "names a register twice")
    for number in numbers:
        check.range("controls.msrs.shadows.number", number, 0, _MSRS - 1)


def _check_times(check: Checks, message: pb.ExitControls) -> None:
    if message.preemption_timer_ns:
        check.range("controls.preemption_timer_ns", message.preemption_timer_ns, *_TIMER_NS)
    check.range("controls.pause_gap_ns", message.pause_gap_ns, 0, _SECOND_NS)
    check.range("controls.pause_window_ns", message.pause_window_ns, 0, _SECOND_NS)


def _control_registers(message: pb.ControlRegisterControls) -> ControlRegisters:
    return ControlRegisters(
        message.cr0_mask,
        message.cr0_shadow,
        message.cr4_mask,
        message.cr4_shadow,
        message.cr3_writes,
        message.cr3_reads,
        tuple(message.cr3_targets),
        message.cr8_writes,
        message.cr8_reads,
    )


def _devices(check: Checks, ranges: Sequence[pb.DeviceRange]) -> tuple[tuple[int, int], ...]:
    field = "controls.device_ranges"
    _most(check, field, ranges, _MAX_DEVICES)
    for entry in ranges:
        check.aligned(f"{field}.gpa", entry.gpa, 4096)
        check.aligned(f"{field}.size_bytes", entry.size_bytes, 4096)
        check.range(f"{field}.size_bytes", entry.size_bytes, 4096, _MAX_DEVICE_BYTES)
        check.range(f"{field}.gpa", entry.gpa, 0, _GPA_END - max(entry.size_bytes, 4096))
    found = _sorted((entry.gpa, entry.size_bytes) for entry in ranges)
    _apart(check, field, found)
    return found


def _posted(
    check: Checks, entries: Sequence[pb.PostedWrite], devices: Sequence[tuple[int, int]]
) -> tuple[PostedWrite, ...]:
    field = "controls.posted_writes"
    _most(check, field, entries, _MAX_POSTED)
    slots = [entry.slot for entry in entries]
    check.that(len(set(slots)) == len(slots), f"{field}.slot", "names a slot twice")
    for entry in entries:
        check.range(f"{field}.slot", entry.slot, 0, _MAX_POSTED - 1)
        check.one_of(f"{field}.size_bytes", entry.size_bytes, _SIZES)
        if entry.WhichOneof("place") == "gpa":
            inside = any(start <= entry.gpa < start + size for start, size in devices)
            check.that(inside, f"{field}.gpa", f"is {entry.gpa:#x}, in no device range")
        elif check.that(entry.WhichOneof("place") == "port", f"{field}.place", "is not given"):
            check.range(f"{field}.port", entry.port, 0, _PORTS - 1)
    return tuple(sorted((_posted_write(entry) for entry in entries), key=lambda entry: entry.slot))


def _posted_write(entry: pb.PostedWrite) -> PostedWrite:
    is_port = entry.WhichOneof("place") == "port"
    return PostedWrite(
        slot=entry.slot,
        port=entry.port if is_port else None,
        gpa=None if is_port else entry.gpa,
        size=entry.size_bytes,
        value=entry.value if entry.HasField("value") else None,
    )


def _posted_message(entry: PostedWrite) -> pb.PostedWrite:
    message = pb.PostedWrite(slot=entry.slot, size_bytes=entry.size, value=entry.value)
    if entry.port is not None:
        message.port = entry.port
    elif entry.gpa is not None:
        message.gpa = entry.gpa
    return message
