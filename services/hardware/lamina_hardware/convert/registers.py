"""Registers and exit records between contract and run page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from lamina.hardware.v1 import registers_pb2 as pb

from lamina_hardware.domain.contexts.exit_controls import KEPT_MSRS
from lamina_hardware.io import register_file
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import SEGMENT_NAMES, ExitReason, ExitRecord, RunPage

ALL_GROUPS = tuple(range(pb.REGISTER_GROUP_GENERAL, pb.REGISTER_GROUP_TIME + 1))
_WORD = (1 << 64) - 1
_BLOCKED = run_page.BLOCKED_BY_STI | run_page.BLOCKED_BY_MOV_SS

_KINDS = {
    pb.PendingEvent.KIND_EXTERNAL: run_page.EVENT_EXTERNAL,
    pb.PendingEvent.KIND_NMI: run_page.EVENT_NMI,
    pb.PendingEvent.KIND_EXCEPTION: run_page.EVENT_EXCEPTION,
    pb.PendingEvent.KIND_SOFTWARE: run_page.EVENT_SOFTWARE,
}
_KIND_BITS = 7 << 8


def registers(
    page: RunPage, groups: Collection[int], msrs: Collection[int], shadows: Mapping[int, int]
) -> pb.Registers:
    """Returns the groups of registers asked for; `msrs` are numbers that the context has."""
    message = pb.Registers()
    for group in sorted(groups):
        if group == pb.REGISTER_GROUP_MSRS:
            message.msrs.extend(pb.Msr(number=number, value=_msr(page, number, shadows)) for number in msrs)
        else:
            _READERS[group](page, message)
    return message


def known_msrs(shadows: Mapping[int, int]) -> list[int]:
    """Returns the numbers of the MSRs that a context has, ascending."""
    return sorted({*KEPT_MSRS, *shadows})


def _msr(page: RunPage, number: int, shadows: Mapping[int, int]) -> int:
    return shadows[number] if number in shadows else register_file.read_msr(page, number)


def _read_general(page: RunPage, message: pb.Registers) -> None:
    message.general.extend(page.gpr)


def _read_flow(page: RunPage, message: pb.Registers) -> None:
    blocked = page.interruptibility
    message.flow.CopyFrom(
        pb.FlowState(
            rip=page.rip,
            rflags=page.rflags,
            cpl=page.cpl & 3,
            activity=page.activity + 1 if page.activity <= 3 else 0,  # type: ignore[arg-type]
            shadowed=bool(blocked & _BLOCKED),
            nmi_blocked=bool(blocked & run_page.BLOCKED_BY_NMI),
        )
    )


def _read_control(page: RunPage, message: pb.Registers) -> None:
    message.control.CopyFrom(
        pb.ControlRegisters(
            cr0=page.cr0, cr2=page.cr2, cr3=page.cr3, cr4=page.cr4, cr8=page.cr8, efer=page.efer, xcr0=page.xcr0
        )
    )


def _read_segments(page: RunPage, message: pb.Registers) -> None:
    for name in SEGMENT_NAMES:
        found = page.segment(name)
        message.segments.add(selector=found.selector, base=found.base, limit=found.limit, attributes=found.attributes)
    message.gdtr.CopyFrom(pb.DescriptorTable(base=page.gdtr_base, limit=page.gdtr_limit))
    message.idtr.CopyFrom(pb.DescriptorTable(base=page.idtr_base, limit=page.idtr_limit))


def _read_floating(page: RunPage, message: pb.Registers) -> None:
    message.floating = bytes(page.fxsave)


def _read_debug(page: RunPage, message: pb.Registers) -> None:
    addresses = (page.dr0, page.dr1, page.dr2, page.dr3)
    message.debug.CopyFrom(pb.DebugRegisters(addresses=addresses, dr6=page.dr6, dr7=page.dr7))


def _read_event(page: RunPage, message: pb.Registers) -> None:
    event = page.event
    if not event & run_page.EVENT_VALID:
        return
    kinds = {bits: kind for kind, bits in _KINDS.items()}
    found = pb.PendingEvent(vector=event & 0xFF, kind=kinds.get(event & _KIND_BITS, 0))  # type: ignore[arg-type]
    if event & run_page.EVENT_ERROR_CODE:
        found.error_code = page.event_error_code
    message.event.CopyFrom(found)


def _read_time(page: RunPage, message: pb.Registers) -> None:
    message.tsc = (page.tsc + page.tsc_offset) & _WORD


_READERS: dict[int, Callable[[RunPage, pb.Registers], None]] = {
    pb.REGISTER_GROUP_GENERAL: _read_general,
    pb.REGISTER_GROUP_FLOW: _read_flow,
    pb.REGISTER_GROUP_CONTROL: _read_control,
    pb.REGISTER_GROUP_SEGMENTS: _read_segments,
    pb.REGISTER_GROUP_FLOATING: _read_floating,
    pb.REGISTER_GROUP_DEBUG: _read_debug,
    pb.REGISTER_GROUP_EVENT: _read_event,
    pb.REGISTER_GROUP_TIME: _read_time,
}


def put_registers(page: RunPage, message: pb.Registers, groups: Collection[int]) -> None:
    """Writes the groups to a page and marks them as changed; MSRs that are shadows are the caller's to write."""
    for group in sorted(groups):
        _WRITERS[group](page, message)


def _write_general(page: RunPage, message: pb.Registers) -> None:
    for number, value in enumerate(message.general):
        page.gpr[number] = value
    page.dirty |= run_page.DIRTY_GPRS


def _write_flow(page: RunPage, message: pb.Registers) -> None:
    flow = message.flow
    page.rip, page.rflags, page.cpl = flow.rip, flow.rflags | 2, flow.cpl
    page.activity = max(flow.activity - 1, 0)
    blocked = page.interruptibility & (_BLOCKED if flow.shadowed else 0) or int(flow.shadowed)
    page.interruptibility = blocked | (run_page.BLOCKED_BY_NMI if flow.nmi_blocked else 0)
    page.dirty |= run_page.DIRTY_RIP


def _write_control(page: RunPage, message: pb.Registers) -> None:
    control = message.control
    page.cr0, page.cr2, page.cr3, page.cr4 = control.cr0, control.cr2, control.cr3, control.cr4
    page.cr8, page.efer, page.xcr0 = control.cr8, control.efer, control.xcr0
    page.dirty |= run_page.DIRTY_CONTROL


def _write_msrs(page: RunPage, message: pb.Registers) -> None:
    for entry in message.msrs:
        if entry.number in KEPT_MSRS:
            register_file.write_msr(page, entry.number, entry.value)


def _write_segments(page: RunPage, message: pb.Registers) -> None:
    for name, entry in zip(SEGMENT_NAMES, message.segments, strict=True):
        page.set_segment(name, run_page.Segment(entry.selector, entry.base, entry.limit, entry.attributes))
    if message.HasField("gdtr"):
        page.gdtr_base, page.gdtr_limit = message.gdtr.base, message.gdtr.limit
    if message.HasField("idtr"):
        page.idtr_base, page.idtr_limit = message.idtr.base, message.idtr.limit
    page.dirty |= run_page.DIRTY_SEGMENTS


def _write_floating(page: RunPage, message: pb.Registers) -> None:
    page.fxsave[:] = message.floating
    page.dirty |= run_page.DIRTY_FPU


def _write_debug(page: RunPage, message: pb.Registers) -> None:
    page.dr0, page.dr1, page.dr2, page.dr3 = message.debug.addresses
    page.dr6, page.dr7 = message.debug.dr6, message.debug.dr7


def _write_event(page: RunPage, message: pb.Registers) -> None:
    if not message.HasField("event"):
        page.event = page.event_error_code = 0
        return
    event = message.event
    has_code = event.HasField("error_code")
    code = run_page.EVENT_ERROR_CODE if has_code else 0
    page.event = event.vector | _KINDS[event.kind] | code | run_page.EVENT_VALID
    page.event_error_code = event.error_code if has_code else 0


def _write_time(page: RunPage, message: pb.Registers) -> None:
    page.tsc = (message.tsc - page.tsc_offset) & _WORD


_WRITERS: dict[int, Callable[[RunPage, pb.Registers], None]] = {
    pb.REGISTER_GROUP_GENERAL: _write_general,
    pb.REGISTER_GROUP_FLOW: _write_flow,
    pb.REGISTER_GROUP_CONTROL: _write_control,
    pb.REGISTER_GROUP_MSRS: _write_msrs,
    pb.REGISTER_GROUP_SEGMENTS: _write_segments,
    pb.REGISTER_GROUP_FLOATING: _write_floating,
    pb.REGISTER_GROUP_DEBUG: _write_debug,
    pb.REGISTER_GROUP_EVENT: _write_event,
    pb.REGISTER_GROUP_TIME: _write_time,
}


def exit_detail(found: ExitRecord, rcx: int) -> pb.ExitDetail | None:
    """Returns an exit record as a message, None before the first run. `rcx` numbers the register of an MSR access."""
    if found.reason == ExitReason.NONE:
        return None
    is_io = found.reason == ExitReason.IO
    number = found.port if is_io else _register_number(found, rcx)
    detail = pb.ExitDetail(
        vector=found.vector & 0xFF,
        error_code=found.error_code,
        address=found.address,
        gpa=found.gpa,
        qualification=found.qualification,
        number=number,
        size_bytes=(found.io_size if is_io else found.access_size) & 0xF,
        write=bool(found.io_direction) or found.access == run_page.ACCESS_WRITE,
        value=found.access_value or found.io_data,
        repetitions=min(max(found.io_count, 1), (1 << 63) - 1),
        instruction_bytes=found.instruction_length & 0xF,
    )
    if found.access_register != run_page.NO_REGISTER:
        detail.register = found.access_register & 15
    return detail


def _register_number(found: ExitRecord, rcx: int) -> int:
    if found.reason in (ExitReason.MSR, ExitReason.XSETBV):
        return rcx & 0xFFFF_FFFF
    return found.qualification & 15 if found.reason in (ExitReason.CR_ACCESS, ExitReason.DR_ACCESS) else 0
