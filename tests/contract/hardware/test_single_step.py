"""RFLAGS.TF: a trap behind each instruction, whoever does it."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.bench32 import TEXT, Guest32
from tests.contract.hardware.conftest import KERNEL

from lamina_kit.bus.run_page import ExitReason

TF, SINGLE_STEP = 1 << 8, 1 << 14
STEPS = {
    "inc eax; jmp back": ("ffc0ebfc", (2, 0, 2, 0)),
    "mov rax, cr0; mov cr0, rax": ("0f20c00f22c0ebf8", (3, 6, 0)),
    "mov rbx, dr0; nop": ("0f21c390f4", (3, 4)),
}


@pytest.mark.parametrize("name", STEPS)
async def test_each_instruction_traps(bench: Any, name: str) -> None:
    """With TF a run ends behind each instruction, with #DB and DR6.BS; each counts as one."""
    code, ends = STEPS[name]
    guest = await bench.guest("hlt", intercepts=pb.Intercepts(exceptions=1 << 1, cpuid=True, syscall=False))
    guest.put(KERNEL, bytes.fromhex(code))
    guest.page.rflags |= TF
    guest.at(KERNEL)
    for end in ends:
        record = await guest.run()
        assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 1, KERNEL + end)
        assert (record.instructions_retired, guest.page.dr6 & SINGLE_STEP) == (1, SINGLE_STEP)
        guest.page.dr6 &= ~SINGLE_STEP


async def test_a_guest_single_steps_by_itself(bench: Any) -> None:
    """Without an exit the trap reaches the guest's handler, which runs with TF clear; IRET goes on stepping."""
    guest = await Guest32(bench).start("spin")
    guest.gate(1, "iret32", 0x12000)
    guest.page.rflags |= TF
    record = await guest.run(30)
    assert (record.reason, guest.get(0x8000)) == (ExitReason.BUDGET, 10)
    assert guest.page.rax == 5
    assert TEXT <= record.rip <= TEXT + 2 or record.rip >= 0x12000
