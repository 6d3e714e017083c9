"""Registers through messages and through saved states, and saved states that were tampered with."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lamina.hardware.v1 import registers_pb2 as pb

from lamina_hardware.contexts import register_checks
from lamina_hardware.contexts import state as context_state
from lamina_hardware.convert.registers import ALL_GROUPS, known_msrs, put_registers, registers
from lamina_hardware.domain.apic.pending import Pending
from lamina_hardware.domain.contexts import register_rules as rules
from lamina_hardware.io import register_file
from lamina_hardware.io.reset import reset_registers
from lamina_kit.bus.run_page import CpuidEntry, RunPage
from lamina_kit.errors import FailedPrecondition, InvalidArgument

WORD = st.integers(0, 2**64 - 1)
LOW = st.integers(0, 2**32 - 1)
ADDRESS = st.integers(-(2**47), 2**47 - 1).map(lambda address: address % 2**64)
ANSWERS = st.lists(st.builds(CpuidEntry, *[LOW] * 6), max_size=3, unique_by=lambda entry: (entry.leaf, entry.subleaf))
SETTINGS = settings(max_examples=100, deadline=None)
IMPLIED = b"\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00"


def msr(number: int) -> st.SearchStrategy[pb.Msr]:
    """Returns values that the register may have."""
    if number == rules.EFER:
        return st.just(pb.Msr(number=number, value=0xD01))
    values = st.sampled_from((0x0007_0406_0007_0406, 0, 0x0606_0606_0606_0606)) if number == rules.PAT else ADDRESS
    if number in (0x174, 0xC000_0084, 0xC000_0103):
        values = LOW
    return values.map(lambda value: pb.Msr(number=number, value=value))


@st.composite
def messages(draw: Any) -> pb.Registers:
    """Returns registers that the architecture allows, in long mode."""
    floating = bytearray(draw(st.binary(min_size=512, max_size=512)))
    floating[26:28] = b"\0\0"  # MXCSR has 16 bits
    segments = [
        pb.Segment(
            selector=draw(st.integers(0, 0xFFFF)), base=draw(ADDRESS), limit=draw(LOW),
            attributes=draw(WORD) & rules.ATTRIBUTES_KNOWN,
        )
        for _ in range(8)
    ]  # fmt: skip
    table = st.builds(pb.DescriptorTable, base=ADDRESS, limit=st.integers(0, 0xFFFF))
    found = pb.Registers(
        general=draw(st.lists(WORD, min_size=16, max_size=16)),
        flow=pb.FlowState(
            rip=draw(ADDRESS), rflags=draw(WORD) & rules.RFLAGS_KNOWN & ~rules.RFLAGS_VM | 2,
            cpl=draw(st.sampled_from((0, 3))),
            activity=draw(st.integers(1, 4)), shadowed=draw(st.booleans()), nmi_blocked=draw(st.booleans()),
        ),
        control=pb.ControlRegisters(
            cr0=0x8001_0033, cr2=draw(WORD), cr3=draw(st.integers(0, 2**52 - 1)),
            cr4=draw(WORD) & rules.CR4_KNOWN | 0x20, cr8=draw(st.integers(0, 15)), efer=0xD01,
            xcr0=draw(st.sampled_from((1, 3))),
        ),
        msrs=[draw(msr(number)) for number in known_msrs({})],
        segments=segments, gdtr=draw(table), idtr=draw(table), floating=bytes(floating),
        debug=pb.DebugRegisters(addresses=[draw(WORD) for _ in range(4)], dr6=draw(LOW), dr7=draw(LOW)),
        tsc=draw(WORD),
    )  # fmt: skip
    kind = draw(st.integers(0, 4))
    if kind:
        vector = {2: st.just(2), 3: st.integers(0, 31)}.get(kind, st.integers(0, 255))
        found.event.CopyFrom(pb.PendingEvent(vector=draw(vector), kind=kind))
        if kind == 3 and draw(st.booleans()):
            found.event.error_code = draw(LOW)
    bases = {0xC000_0100: 4, 0xC000_0101: 5}  # FS and GS have their base in two places of the message
    for entry in found.msrs:
        if entry.number in bases:
            entry.value = found.segments[bases[entry.number]].base
    return found


def written(message: pb.Registers) -> RunPage:
    """Returns a page with these registers, which pass the checks."""
    page = register_file.scratch()
    reset_registers(page.view, 3)
    register_checks.check_registers(message, ALL_GROUPS, page.cr0, page.cr4)
    put_registers(page, message, ALL_GROUPS)
    return page


def told(page: RunPage) -> pb.Registers:
    """Returns all registers of a page."""
    return registers(page, ALL_GROUPS, known_msrs({}), {})


def state(page: RunPage) -> bytes:
    """Returns a page as a saved state of a context without controls of its own."""
    return context_state.pack(
        {
            context_state.REGISTERS: register_file.save(page),
            context_state.IMPLIED: IMPLIED,
            context_state.PENDING: Pending().pack(),
        }
    )


@SETTINGS
@given(messages())
def test_what_is_written_is_read_back(message: pb.Registers) -> None:
    """Every register that the checks allow is read as it was written."""
    assert told(written(message)) == message


@SETTINGS
@given(messages(), ANSWERS)
def test_a_saved_state_restores_the_same_registers(message: pb.Registers, answers: list[CpuidEntry]) -> None:
    """Save, restore, and all registers and CPUID answers are the same; saving again gives the same bytes."""
    page = written(message)
    page.set_cpuid(tuple(answers))
    data = state(page)
    restored = context_state.load(pb.ContextState(version=1, data=data))
    assert told(restored.page) == message
    assert restored.page.cpuid() == page.cpuid()
    assert state(restored.page) == data
    assert restored.controls == context_state.Implied(0xFFFF_FFFF, True, False)


def _loads(data: bytes) -> None:
    """A state is refused with its own error, or is one that is saved as these very bytes."""
    try:
        restored = context_state.load(pb.ContextState(version=1, data=data))
    except InvalidArgument as error:
        assert error.reason == "CONTEXT_STATE_MALFORMED"
        return
    sections = context_state.unpack(data)
    assert register_file.save(restored.page) == sections[context_state.REGISTERS]
    assert context_state.pack(sections) == data


@SETTINGS
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"LMCS" + tail))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    """No bytes crash the parser."""
    _loads(data)


@settings(max_examples=300, deadline=None)
@given(messages(), st.data())
def test_changed_states_are_refused_or_canonical(message: pb.Registers, data: st.DataObject) -> None:
    """Bytes changed, cut out or put in anywhere: refused, or exactly the bytes of another state."""
    whole = bytearray(state(written(message)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, min(24, len(whole) - 1)))
        kind = data.draw(st.sampled_from(("set", "cut", "put")))
        if kind == "set":
            whole[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del whole[at : at + data.draw(st.integers(1, 8))]
        else:
            whole[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        if not whole:
            break
    _loads(bytes(whole))


@SETTINGS
@given(st.integers(-(2**31), 2**31 - 1).filter(lambda version: version != 1))
def test_other_versions_are_refused(version: int) -> None:
    """A state of another layout is not looked at."""
    try:
        context_state.load(pb.ContextState(version=version, data=b"anything"))
    except FailedPrecondition as error:
        assert error.reason == "CONTEXT_STATE_VERSION"
    else:
        raise AssertionError("it was taken")
