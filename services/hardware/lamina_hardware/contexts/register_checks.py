"""What `WriteRegisters` and `RestoreContext` refuse: malformed groups, values that the architecture refuses."""

from __future__ import annotations

from collections.abc import Callable, Collection

from lamina.hardware.v1 import registers_pb2 as pb

from lamina_hardware.convert.registers import ALL_GROUPS
from lamina_hardware.domain.contexts import register_rules as rules
from lamina_kit.bus.run_page import FXSAVE_BYTES, SEGMENT_NAMES
from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument

MAX_GROUPS, MAX_MSRS = 9, 256
_WORD32 = (1 << 32) - 1
_REASON = "REGISTERS_MALFORMED"


def check_groups(groups: Collection[int], *, required: bool) -> None:
    """Raises `InvalidArgument` for groups that are not there, are named twice, or are too many."""
    with Checks() as check:
        check.that(len(groups) <= MAX_GROUPS, "groups", f"has more than {MAX_GROUPS} entries")
        check.that(len(set(groups)) == len(groups), "groups", "names a group twice")
        check.that(bool(groups) or not required, "groups", "is empty")
        for group in groups:
            check.one_of("groups", group, ALL_GROUPS)


def check_msrs(numbers: Collection[int], known: Collection[int]) -> None:
    """Raises `InvalidArgument`, `MSR_UNKNOWN` for a register that the context does not have."""
    with Checks() as check:
        check.that(len(numbers) <= MAX_MSRS, "msrs", f"has more than {MAX_MSRS} entries")
    for number in numbers:
        if number not in known:
            raise InvalidArgument(
                f"The context has no model-specific register {number:#x}.",
                reason="MSR_UNKNOWN",
                next_step="Read the group without numbers to see which there are, or make it a shadow register.",
            )


def check_registers(message: pb.Registers, groups: Collection[int], cr0: int, cr4: int) -> None:
    """Raises `InvalidArgument` `REGISTERS_MALFORMED` that names each wrong register of the groups.

    `cr0` and `cr4` are those of the context, against which EFER is checked when the group of control registers does
    not change.
    """
    with Checks(_REASON) as check:
        for group in sorted(groups):
            if group in _CHECKS:
                _CHECKS[group](check, message)
        if pb.REGISTER_GROUP_CONTROL in groups:
            cr0, cr4 = message.control.cr0, message.control.cr4
        if pb.REGISTER_GROUP_MSRS in groups:
            for entry in message.msrs:
                if entry.number == rules.EFER:
                    _say(check, "registers.msrs.value", rules.efer(entry.value, cr0, cr4))
        if pb.REGISTER_GROUP_FLOW in groups and message.flow.rflags & rules.RFLAGS_VM:
            legacy = pb.REGISTER_GROUP_CONTROL in groups and not message.control.efer & rules.EFER_LMA
            check.that(legacy, "registers.flow.rflags", "has VM, without control registers that allow it")


def _say(check: Checks, field: str, wrong: str) -> None:
    check.that(not wrong, field, wrong)


def _general(check: Checks, message: pb.Registers) -> None:
    check.that(len(message.general) == 16, "registers.general", f"has {len(message.general)} words, not 16")


def _flow(check: Checks, message: pb.Registers) -> None:
    flow = message.flow
    _say(check, "registers.flow.rip", rules.canonical(flow.rip))
    _say(check, "registers.flow.rflags", rules.known(flow.rflags, rules.RFLAGS_KNOWN))
    check.one_of("registers.flow.cpl", flow.cpl, (0, 3))
    check.one_of("registers.flow.activity", flow.activity, tuple(pb.FlowState.Activity.values()))


def _control(check: Checks, message: pb.Registers) -> None:
    control = message.control
    field = "registers.control"
    _say(check, f"{field}.cr0", rules.cr0(control.cr0))
    _say(check, f"{field}.cr3", rules.known(control.cr3, (1 << 52) - 1))
    _say(check, f"{field}.cr4", rules.known(control.cr4, rules.CR4_KNOWN))
    check.range(f"{field}.cr8", control.cr8, 0, 15)
    _say(check, f"{field}.efer", rules.efer(control.efer, control.cr0, control.cr4))
    check.that(bool(control.xcr0 & 1), f"{field}.xcr0", "has no x87 state")
    _say(check, f"{field}.xcr0", rules.known(control.xcr0, rules.XCR0_KNOWN))


def _msrs(check: Checks, message: pb.Registers) -> None:
    numbers = [entry.number for entry in message.msrs]
    check.that(len(set(numbers)) == len(numbers), "registers.msrs", "names a register twice")
    for entry in message.msrs:
        _say(check, f"registers.msrs[{entry.number:#x}]", rules.msr(entry.number, entry.value))


def _segments(check: Checks, message: pb.Registers) -> None:
    field = "registers.segments"
    check.that(len(message.segments) == len(SEGMENT_NAMES), field, f"has {len(message.segments)} entries, not 8")
    for entry in message.segments:
        check.range(f"{field}.selector", entry.selector, 0, 0xFFFF)
        check.range(f"{field}.limit", entry.limit, 0, _WORD32)
        _say(check, f"{field}.base", rules.canonical(entry.base))
        _say(check, f"{field}.attributes", rules.known(entry.attributes, rules.ATTRIBUTES_KNOWN))
    for name in ("gdtr", "idtr"):
        table: pb.DescriptorTable = getattr(message, name)
        _say(check, f"registers.{name}.base", rules.canonical(table.base))
        check.range(f"registers.{name}.limit", table.limit, 0, 0xFFFF)


def _floating(check: Checks, message: pb.Registers) -> None:
    data = message.floating
    if check.that(len(data) == FXSAVE_BYTES, "registers.floating", f"has {len(data)} bytes, not {FXSAVE_BYTES}"):
        mxcsr = int.from_bytes(data[24:28], "little")
        _say(check, "registers.floating", rules.known(mxcsr, 0xFFFF))


def _debug(check: Checks, message: pb.Registers) -> None:
    debug = message.debug
    check.that(len(debug.addresses) == 4, "registers.debug.addresses", f"has {len(debug.addresses)} entries, not 4")
    check.range("registers.debug.dr6", debug.dr6, 0, _WORD32)
    check.range("registers.debug.dr7", debug.dr7, 0, _WORD32)


def _event(check: Checks, message: pb.Registers) -> None:
    if not message.HasField("event"):
        return
    event = message.event
    check.range("registers.event.vector", event.vector, 0, 255)
    check.one_of("registers.event.kind", event.kind, tuple(pb.PendingEvent.Kind.values())[1:])
    is_exception = event.kind == pb.PendingEvent.KIND_EXCEPTION
    check.that(not is_exception or event.vector < 32, "registers.event.vector", "is of no exception")
    is_nmi = event.kind == pb.PendingEvent.KIND_NMI
    check.that(not is_nmi or event.vector == 2, "registers.event.vector", "is not 2, that of an NMI")
    has_code = event.HasField("error_code")
    check.that(is_exception or not has_code, "registers.event.error_code", "is given for no exception")
    check.range("registers.event.error_code", event.error_code, 0, _WORD32)


_CHECKS: dict[int, Callable[[Checks, pb.Registers], None]] = {
    pb.REGISTER_GROUP_GENERAL: _general,
    pb.REGISTER_GROUP_FLOW: _flow,
    pb.REGISTER_GROUP_CONTROL: _control,
    pb.REGISTER_GROUP_MSRS: _msrs,
    pb.REGISTER_GROUP_SEGMENTS: _segments,
    pb.REGISTER_GROUP_FLOATING: _floating,
    pb.REGISTER_GROUP_DEBUG: _debug,
    pb.REGISTER_GROUP_EVENT: _event,
}
