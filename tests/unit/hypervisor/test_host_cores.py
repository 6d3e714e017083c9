"""What the hypervisor does where cores do more by themselves: calls through a port, answers given ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.hypervisor.conftest import run

from lamina_hypervisor.domain.vcpus import msr
from lamina_hypervisor.domain.vcpus.processor import Processor
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.model.machine import ModelMachine
from lamina_kit.bus.run_page import ExitReason

Make = Callable[..., ModelMachine]


@pytest.mark.parametrize(
    ("number", "cpl", "result", "name"),
    [
        (1, 0, 0, "yield"),
        (0, 0, 0, "power off"),
        (99, 0, (1 << 64) - 1000, "unknown"),
        (1, 3, (1 << 64) - 1, "not permitted"),
    ],
)
def test_a_write_to_the_call_port_is_a_hypercall(
    world: Any, make_machine: Make, leave: Any, number: int, cpl: int, result: int, name: str
) -> None:
    """The same registers and answers as VMCALL has, in the ledger as a port with the call's name."""
    machine = make_machine()
    written = leave(ExitReason.IO, port=0xCA1, io_size=4, io_direction=1, io_data=number, rax=number, cpl=cpl)
    page = run(world, machine, written)
    assert page.rax == result
    assert machine.ledger.count(f"out 0xca1 {name}") == 1
    assert (machine.verdict is not None) == (name == "power off")


def test_cores_that_do_not_leave_are_given_their_answers(world: Any, make_machine: Make, leave: Any) -> None:
    """CPUID does not exit then: its answers are in the run page; VMCALL and RDRAND are not offered; time is theirs."""
    world.processor = Processor(traps=False, tsc_hz=2_500_000_000)
    machine = make_machine(vcpus=2)
    assert {effect.traps for effect in world.performed(effects.CreateContext)} == {False}
    answers = {entry.leaf: entry for entry in machine.vcpus[1].page.cpuid()}
    assert (answers[1].ebx >> 24, answers[1].ecx >> 30) == (1, 0b10)
    calls = answers[0x4000_0001]
    assert (calls.ebx, calls.ecx, calls.edx) == (2_500_000, 0xCA1, 0)
    (info,) = [effect.data for effect in world.performed(effects.WriteRam) if effect.gpa == 0x90000]
    assert int.from_bytes(info[56:64], "little") == 2_500_000_000
    page = run(world, machine, leave(ExitReason.MSR, rcx=msr.TSC, io_direction=0))
    assert page.rax > 0 and page.rax % 2500 == 0, "the clock of this world goes by microseconds"
