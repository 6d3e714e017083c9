"""Control registers, debug registers and descriptor tables: what exits, what is masked, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.hardware.v1 import exit_controls_pb2 as pb

from lamina_kit.bus.run_page import ExitReason, ExitRecord

KERNEL, DATA = 0xFFFF_8000_0000_0000, 0xFFFF_8000_0001_0000
TEXT = 0x400000
HLT = pb.TRAPPED_INSTRUCTION_HLT
ALL = (1 << 32) - 1


def wanted(*instructions: int, **fields: Any) -> pb.ExitControls:
    """Returns controls that trap HLT and these instructions, and all exceptions unless said otherwise."""
    fields.setdefault("exceptions", ALL)
    return pb.ExitControls(instructions=[HLT, *instructions], **fields)  # type: ignore[list-item]


async def choose(bench: Any, context: Any, controls: pb.ExitControls) -> pb.ExitControls:
    """Gives a context its controls; returns what the core has then."""
    found = await bench.cpu.SetExitControls(pb.SetExitControlsRequest(handle=context.handle, controls=controls))
    assert isinstance(found, pb.ExitControls)
    return found


async def prepare(bench: Any, code: str, controls: pb.ExitControls, **registers: int) -> Any:
    """Returns a guest at ring 0 with machine code at KERNEL, controls and registers."""
    guest = await bench.guest("hlt")
    await choose(bench, guest.context, controls)
    guest.put(KERNEL, bytes.fromhex(code))
    for name, value in registers.items():
        setattr(guest.page, name, value)
    guest.at(KERNEL)
    return guest


async def exit_of(bench: Any, code: str, controls: pb.ExitControls, **registers: int) -> tuple[Any, ExitRecord]:
    """Returns the guest and its first exit."""
    guest = await prepare(bench, code, controls, **registers)
    return guest, await guest.run()


MOVES: list[tuple[str, dict[str, Any], int, int]] = [
    ("0f20d8f4", {"cr3_reads": True}, 0x13, 0),
    ("440f20c1f4", {"cr8_reads": True}, 0x118, 0),
    ("440f22c1f4", {"cr8_writes": True}, 0x108, 5),
    ("0f22c1f4", {"cr0_mask": 8, "cr0_shadow": 8}, 0x100, 5),
    ("0f22e1f4", {"cr4_mask": 1 << 13, "cr4_shadow": 1 << 13}, 0x104, 5),
    ("0f06f4", {"cr0_mask": 8, "cr0_shadow": 8}, 0x20, 0),
    ("0f01f1f4", {"cr0_mask": 4}, 0x5_0130, 0),
]


@pytest.mark.parametrize(("code", "registers", "qualification", "value"), MOVES)
async def test_control_registers_exit_with_their_qualification(
    bench: Any, code: str, registers: dict[str, Any], qualification: int, value: int
) -> None:
    """MOV CR, CLTS and LMSW exit behind themselves; the write has not been made."""
    controls = wanted(control_registers=pb.ControlRegisterControls(**registers))
    guest = await prepare(bench, code, controls, rcx=5)
    before = (guest.page.cr0, guest.page.cr3, guest.page.cr4, guest.page.cr8)
    record = await guest.run()
    assert (record.reason, hex(record.qualification)) == (ExitReason.CR_ACCESS, hex(qualification))
    assert (record.rip - KERNEL, record.io_data) == (len(code) // 2 - 1, value)
    assert (guest.page.cr0, guest.page.cr3, guest.page.cr4, guest.page.cr8) == before


async def test_masks_and_shadows_of_cr0_and_cr4(bench: Any) -> None:
    """Reads see the shadow in masked bits; writes that agree with it change only the bits that are the guest's."""
    controls = wanted(
        control_registers=pb.ControlRegisterControls(cr0_mask=1 << 5, cr4_mask=1 << 13, cr4_shadow=1 << 13)
    )
    code = "0f20c0480fbae8030f22c00f20c30f20e10f01e7f4"
    guest, record = await exit_of(bench, code, controls, rdi=0)
    assert record.reason == ExitReason.HLT
    assert guest.page.cr0 == 0x8001_003B  # TS set by the guest, NE stays the holder's
    assert (guest.page.rbx, guest.page.rcx, guest.page.rdi) == (0x8001_001B, 0x2620, 0x8001_001B)


async def test_cr3_targets_do_not_exit(bench: Any) -> None:
    """A write of CR3 exits unless the value is a target; a target takes effect."""
    guest = await prepare(bench, "0f22d80f22d9f4", wanted())
    root = guest.page.cr3
    await choose(
        bench,
        guest.context,
        wanted(control_registers=pb.ControlRegisterControls(cr3_writes=True, cr3_targets=[root])),
    )
    guest.page.rax, guest.page.rcx = root, root + 0x1000
    record = await guest.run()
    found = (record.reason, record.qualification, record.io_data, record.rip - KERNEL)
    assert found == (ExitReason.CR_ACCESS, 0x103, root + 0x1000, 6)


@pytest.mark.parametrize("code", ["0f22c0f4", "0f22e0f4", "440f22c0f4"])
async def test_wrong_control_registers_are_refused(bench: Any, code: str) -> None:
    """A value with reserved bits is a #GP on the instruction, and changes nothing."""
    guest, record = await exit_of(bench, code, wanted(), rax=1 << 40)
    assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 13, KERNEL)
    assert (guest.page.cr0, guest.page.cr4, guest.page.cr8) == (0x8001_0033, 0x620, 0)


async def test_debug_registers_are_state(bench: Any) -> None:
    """MOV DR writes and reads the page's registers with their fixed bits; trapped, it exits with its qualification."""
    code = "0f23d80f21db0f23f80f21f90f23f0f4"
    guest, record = await exit_of(bench, code, wanted(), rax=0x1234)
    assert (record.reason, guest.page.rbx, guest.page.rcx) == (ExitReason.HLT, 0x1234, 0x634)
    assert (guest.page.dr3, guest.page.dr7, guest.page.dr6) == (0x1234, 0x634, 0xFFFF_0FF4)
    guest, record = await exit_of(bench, "0f23c9f4", wanted(debug_registers=True), rcx=0x99)
    assert (record.reason, record.qualification, record.io_data) == (ExitReason.DR_ACCESS, 0x101, 0x99)
    assert (guest.page.dr1, record.rip - KERNEL) == (0, 3)
    _, record = await exit_of(bench, "0f21f1f4", wanted(debug_registers=True))
    assert (record.reason, record.qualification) == (ExitReason.DR_ACCESS, 0x116)


async def test_protected_debug_registers(bench: Any) -> None:
    """With DR7.GD an access is a #DB that says so in DR6, and clears the bit."""
    guest, record = await exit_of(bench, "0f21c1f4", wanted(), dr7=0x2400, dr6=0xFFFF_0FF0)
    assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 1, KERNEL)
    assert (guest.page.dr7, guest.page.dr6) == (0x400, 0xFFFF_2FF0)


@pytest.mark.parametrize(
    ("code", "write"),
    [("0f0113f4", 1), ("0f011bf4", 1), ("0f0103f4", 0), ("0f010bf4", 0), ("0f00d0f4", 1), ("0f00d8f4", 1),
     ("0f00c0f4", 0), ("0f00c8f4", 0)],
)  # fmt: skip
async def test_descriptor_tables_exit_on_the_instruction(bench: Any, code: str, write: int) -> None:
    """LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT and STR exit on themselves, with the operand's address."""
    _, record = await exit_of(bench, code, wanted(pb.TRAPPED_INSTRUCTION_DESCRIPTOR_TABLE), rbx=DATA + 16, rax=0)
    assert (record.reason, record.rip) == (ExitReason.DESCRIPTOR_TABLE, KERNEL)
    assert (record.io_direction, record.instruction_length) == (write, 3)
    assert record.address == (DATA + 16 if int(code[4:6], 16) < 0xC0 else 0)


async def test_xsetbv_needs_its_enable_bit(bench: Any) -> None:
    """XSETBV without CR4.OSXSAVE is undefined; with it, it exits or sets XCR0 to what the core has."""
    trapped = wanted(pb.TRAPPED_INSTRUCTION_XSETBV)
    _, record = await exit_of(bench, "0f01d1f4", trapped, rax=3, rcx=0, rdx=0)
    assert (record.reason, record.vector) == (ExitReason.EXCEPTION, 6)
    enabled = {"cr4": 0x620 | 1 << 18, "rcx": 0, "rdx": 0}
    guest, record = await exit_of(bench, "0f01d1f4", trapped, rax=3, **enabled)
    assert (record.reason, record.io_data, guest.page.xcr0) == (ExitReason.XSETBV, 3, 1)
    guest, record = await exit_of(bench, "0f01d131c00f01d0f4", wanted(), rax=3, **enabled)
    assert (record.reason, guest.page.xcr0, guest.page.rax) == (ExitReason.HLT, 3, 3)
    _, record = await exit_of(bench, "0f01d1f4", wanted(), rax=2, **enabled)
    assert (record.reason, record.vector) == (ExitReason.EXCEPTION, 13)
