"""The whole state of a context as bytes, for `SaveContext` and `RestoreContext`.

    "LMCS" · number of sections (u32) · for each, ascending: tag (u32) · length (u32) · bytes

Tag 1 is the register file (`register_file.save`); tag 2 the exit controls as a serialized `ExitControls`, with shadow
registers at their values, or tag 3 three words for a context that was never given any; tag 4 the APIC's state, of a
context that has one (`apic_state.pack`); tag 5 the pending interrupts (`Pending.pack`). The same state gives the same
bytes: whoever restores wants exactly what would have been saved, and anything else is malformed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from lamina.hardware.v1 import exit_controls_pb2, registers_pb2

from lamina_hardware.contexts import register_checks
from lamina_hardware.contexts.exit_controls import ControlState
from lamina_hardware.convert import exit_controls, registers
from lamina_hardware.domain.apic import state as apic_state
from lamina_hardware.domain.apic.pending import Pending
from lamina_hardware.domain.apic.state import ApicState
from lamina_hardware.domain.contexts.context import Context
from lamina_hardware.domain.contexts.exit_controls import ALL_EXCEPTIONS, ExitControls
from lamina_hardware.io import register_file
from lamina_kit.bus.run_page import RunPage
from lamina_kit.errors import FailedPrecondition, InvalidArgument

VERSION = 1
MAX_BYTES = 64 << 10
_MAGIC = b"LMCS"
_HEAD = struct.Struct("<4sI")
_SECTION = struct.Struct("<II")
_IMPLIED = struct.Struct("<III")
REGISTERS, CONTROLS, IMPLIED, APIC, PENDING = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Implied:
    """What a context exits for that was never given controls."""

    exceptions: int
    cpuid: bool
    syscall: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """A state that was checked: a page that holds the registers, the controls, the APIC's state, what is pending."""

    page: RunPage
    controls: ExitControls | Implied
    apic: ApicState | None
    pending: bytes


def save(context: Context, page: RunPage, controls: ControlState, apic: ApicState | None) -> registers_pb2.ContextState:
    """Returns the state of an idle context; `apic` is that of its APIC."""
    sections = {REGISTERS: register_file.save(page), PENDING: context.pending.pack()}
    if apic is not None:
        sections[APIC] = apic_state.pack(apic)
    if context.controls is None:
        sections[IMPLIED] = _IMPLIED.pack(context.exceptions, context.cpuid, context.syscall)
    else:
        sections[CONTROLS] = _serialized(controls.get(context))
    return registers_pb2.ContextState(version=VERSION, data=pack(sections))


def load(state: registers_pb2.ContextState) -> Restored:
    """Returns a state that was saved; raises `FailedPrecondition` `CONTEXT_STATE_VERSION` or `InvalidArgument`
    `CONTEXT_STATE_MALFORMED`.
    """
    if state.version != VERSION:
        raise FailedPrecondition(
            f"The state has layout {state.version}; this version knows {VERSION}.",
            reason="CONTEXT_STATE_VERSION",
            next_step="Restore it on a host of the version that saved it.",
        )
    sections = unpack(state.data)
    page = register_file.scratch()
    if not register_file.restore(page, sections.get(REGISTERS, b"")):
        raise malformed("its registers have another length")
    found = registers.registers(page, registers.ALL_GROUPS, registers.known_msrs({}), {})
    try:
        register_checks.check_registers(found, registers.ALL_GROUPS, page.cr0, page.cr4)
    except InvalidArgument as error:
        raise malformed(error.message) from error
    if register_file.save(page) != sections[REGISTERS]:
        raise malformed("its registers are not as they are saved")
    if not Pending().restore(sections[PENDING]):
        raise malformed("its pending interrupts are not as they are saved")
    return Restored(page, _controls(sections), _apic(sections), sections[PENDING])


def pack(sections: dict[int, bytes]) -> bytes:
    """Returns sections as bytes."""
    parts = [_HEAD.pack(_MAGIC, len(sections))]
    for tag, data in sorted(sections.items()):
        parts += [_SECTION.pack(tag, len(data)), data]
    return b"".join(parts)


def unpack(data: bytes) -> dict[int, bytes]:
    """Returns the sections in some bytes; raises `InvalidArgument` unless `pack` would make these bytes of them."""
    if not _HEAD.size <= len(data) <= MAX_BYTES:
        raise malformed(f"it has {len(data)} bytes")
    magic, count = _HEAD.unpack_from(data)
    sections: dict[int, bytes] = {}
    at = _HEAD.size
    while at + _SECTION.size <= len(data) and len(sections) < count:
        tag, length = _SECTION.unpack_from(data, at)
        at += _SECTION.size
        sections[tag] = data[at : at + length]
        at += length
    if magic != _MAGIC or pack(sections) != data:
        raise malformed("its sections are not as they are saved")
    if set(sections) - {APIC} not in ({REGISTERS, CONTROLS, PENDING}, {REGISTERS, IMPLIED, PENDING}):
        raise malformed(f"it has the sections {sorted(sections)}")
    return sections


def malformed(why: str) -> InvalidArgument:
    """Returns the error for bytes that no context was saved as."""
    return InvalidArgument(
        f"The state is not one that SaveContext returned: {why}.",
        reason="CONTEXT_STATE_MALFORMED",
        next_step="Pass the message of SaveContext unchanged.",
    )


def _apic(sections: dict[int, bytes]) -> ApicState | None:
    if APIC not in sections:
        return None
    found = apic_state.unpack(sections[APIC])
    if found is None:
        raise malformed("its APIC is not as it is saved")
    return found


def _controls(sections: dict[int, bytes]) -> ExitControls | Implied:
    if IMPLIED in sections:
        data = sections[IMPLIED]
        if len(data) != _IMPLIED.size:
            raise malformed("its intercepts have another length")
        exceptions, cpuid, syscall = _IMPLIED.unpack(data)
        if exceptions > ALL_EXCEPTIONS or cpuid > 1 or syscall > 1:
            raise malformed("its intercepts are out of range")
        return Implied(exceptions, bool(cpuid), bool(syscall))
    message = exit_controls_pb2.ExitControls()
    try:
        message.ParseFromString(sections[CONTROLS])
        found = exit_controls.exit_controls(message)
    except (DecodeError, InvalidArgument) as error:
        raise malformed("its exit controls are wrong") from error
    if _serialized(found) != sections[CONTROLS]:
        raise malformed("its exit controls are not as they are saved")
    return found


def _serialized(controls: ExitControls) -> bytes:
    return exit_controls.exit_controls_message(controls).SerializeToString(deterministic=True)
