"""What exits change: answers, registers, what is told, and what ends a machine."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.hypervisor.conftest import run
from tests.unit.hypervisor.test_vcpu_life import IF, Make, woken

from lamina_hypervisor.domain.vcpus import msr
from lamina_hypervisor.domain.vcpus.processor import Processor
from lamina_hypervisor.engines.interface import serial_key
from lamina_kit.bus.run_page import (
    DIRTY_CONTROL,
    DIRTY_GPRS,
    DIRTY_MSRS,
    DIRTY_RIP,
    DIRTY_SEGMENTS,
    EVENT_ERROR_CODE,
    EVENT_EXCEPTION,
    EVENT_VALID,
    ExitReason,
)


def test_followers_are_woken_for_output_and_nobody_else(world: Any, make_machine: Make, leave: Any) -> None:
    """Output wakes those who follow the log; without followers, and without output, nobody is woken."""
    machine = make_machine()
    out = {"port": 0x3F8, "io_size": 1, "io_direction": 1, "io_data": 65}
    run(world, machine, leave(ExitReason.IO, **out))
    assert woken(world) == []
    machine.followers = 1
    run(world, machine, leave(ExitReason.IO, **{**out, "port": 0x3FF}), leave(ExitReason.IO, **out))
    assert woken(world) == [serial_key(machine.name)]
    assert machine.serial_log.piece(0) == (0, b"AA")


def test_answers_say_what_they_changed(world: Any, make_machine: Make, leave: Any) -> None:
    """The core is told which registers changed, and no others."""
    machine = make_machine()
    machine.vcpus[0].page.dirty = 0
    page = run(world, machine, leave(ExitReason.IO, port=0x3FD, io_size=1, io_direction=0))
    assert page.dirty == DIRTY_GPRS
    page.dirty = 0
    run(world, machine, leave(ExitReason.IO, port=0x3FD, io_size=1, io_direction=0, address=0x5000))
    run(world, machine, leave(ExitReason.IO, port=0x3F8, io_size=1, io_direction=1, io_data=1, address=0))
    assert page.dirty == 0
    for reason, fields, changed in (
        (ExitReason.CPUID, {"rax": 0}, DIRTY_GPRS),
        (ExitReason.TIMESTAMP, {}, DIRTY_GPRS),
        (ExitReason.HYPERCALL, {"rax": 77, "cpl": 0}, DIRTY_GPRS),
        (ExitReason.RANDOM, {"access_register": 1, "access_size": 8}, DIRTY_GPRS | DIRTY_RIP),
        (ExitReason.MSR, {"rcx": msr.PAT, "io_direction": 0}, DIRTY_GPRS),
        (ExitReason.MSR, {"rcx": msr.PAT, "io_direction": 1, "rax": 0, "rdx": 0}, 0),
        (ExitReason.MSR, {"rcx": msr.LSTAR, "io_direction": 1, "rax": 0, "rdx": 0}, DIRTY_MSRS),
        (ExitReason.MSR, {"rcx": msr.GS_BASE, "io_direction": 1, "rax": 0, "rdx": 0}, DIRTY_SEGMENTS),
        (ExitReason.MSR, {"rcx": msr.EFER, "io_direction": 1, "rax": 0xD01, "rdx": 0}, DIRTY_CONTROL),
    ):
        page.dirty = 0
        run(world, machine, leave(reason, **fields))
        assert page.dirty == changed, reason


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (msr.STAR, "star"), (msr.LSTAR, "lstar"), (msr.SFMASK, "sfmask"), (msr.KERNEL_GS_BASE, "kernel_gs_base"),
        (msr.TSC_AUX, "tsc_aux"), (msr.FS_BASE, "fs_base"), (msr.GS_BASE, "gs_base"),
    ],
)  # fmt: skip
def test_registers_that_the_core_holds_are_read_and_written_there(
    world: Any, make_machine: Make, leave: Any, number: int, word: str
) -> None:
    """WRMSR takes EDX:EAX to the run page, whatever the upper halves hold, and RDMSR brings it back."""
    machine = make_machine()
    high = 0xFFFF_FFFF_0000_0000
    written = leave(
        ExitReason.MSR, rcx=high | number, io_direction=1, rax=high | 0x8765_4321, rdx=high | 0x1234_5678
    )  # fmt: skip
    page = run(world, machine, written)
    assert getattr(page, word) == 0x1234_5678_8765_4321
    page = run(world, machine, leave(ExitReason.MSR, rcx=number, io_direction=0, rax=0, rdx=0))
    assert (page.rdx, page.rax) == (0x1234_5678, 0x8765_4321)
    assert machine.ledger.count(f"write {number:#x}") == machine.ledger.count(f"read {number:#x}") == 1


def test_efer_keeps_long_mode_and_takes_what_is_known(world: Any, make_machine: Make, leave: Any) -> None:
    """Each known bit may be set and cleared but those of long mode; EFER reads as it is."""
    machine = make_machine()
    for value, wanted in ((0, 0x500), (0xD01, 0xD01), (0x800, 0xD00)):
        run(world, machine, leave(ExitReason.MSR, rcx=msr.EFER, io_direction=1, rax=value, rdx=0))
        page = run(world, machine, leave(ExitReason.MSR, rcx=msr.EFER, io_direction=0))
        assert (page.rax, page.efer, page.event) == (wanted, wanted, 0)
    page = run(world, machine, leave(ExitReason.MSR, rcx=msr.EFER, io_direction=1, rax=0xD01, rdx=1, rip=2))
    assert (page.efer, page.rip) == (0xD00, 0)


def test_a_protection_fault_points_at_the_instruction(world: Any, make_machine: Make, leave: Any) -> None:
    """The guest's #GP is an exception with error code 0 at the instruction itself, also across address 0."""
    machine = make_machine()
    page = run(world, machine, leave(ExitReason.MSR, rcx=0x1234, io_direction=0, rip=1, rax=5, event_error_code=9))
    assert page.rip == (1 << 64) - 1
    assert page.event == 13 | EVENT_EXCEPTION | EVENT_ERROR_CODE | EVENT_VALID
    assert (page.event_error_code, page.rax) == (0, 5)
    assert machine.ledger.count("read unknown") == 1


def test_the_counter_is_the_processors(world: Any, make_machine: Make, leave: Any) -> None:
    """RDTSC and the MSR of the counter show ticks since the power-on in EDX:EAX, at the processor's frequency."""
    world.processor = Processor(traps=True, tsc_hz=3_000_000_000)
    machine = make_machine()
    world.clock.ns += 10 * 10**9
    page = run(world, machine, leave(ExitReason.TIMESTAMP))
    first = page.rdx << 32 | page.rax
    page = run(world, machine, leave(ExitReason.MSR, rcx=msr.TSC, io_direction=0))
    second = page.rdx << 32 | page.rax
    assert 30 * 10**9 < first < second < 31 * 10**9
    assert page.rax < 1 << 32


def test_cpuid_looks_at_eax_alone(world: Any, make_machine: Make, leave: Any) -> None:
    """The upper half of RAX is no part of the leaf; all four registers are answered."""
    machine = make_machine(vcpus=2)
    page = run(world, machine, leave(ExitReason.CPUID, rax=1 << 40 | 0x8000_0008, rbx=9, rcx=9, rdx=9))
    assert (page.rax, page.rbx, page.rcx, page.rdx) == (48 << 8 | 40, 0, 1, 0)
    assert machine.ledger.count("leaf 0x80000008") == 1


@pytest.mark.parametrize(("size", "kept"), [(0, 0), (2, 0x1111_1111_1111_0000), (4, 0), (8, 0)])
def test_randomness_fills_its_width(world: Any, make_machine: Make, leave: Any, size: int, kept: int) -> None:
    """RDRAND fills as many bytes as the record says, all eight when it says nothing, and clears the other flags."""
    machine = make_machine()
    page = run(
        world, machine, leave(ExitReason.RANDOM, access_register=1, access_size=size, rcx=0x1111 * 0x1_0001_0001_0001)
    )  # fmt: skip
    width = 8 * (size or 8)
    assert page.rcx & ~((1 << width) - 1) == kept
    assert page.rcx & (1 << width) - 1 not in (0, 0x1111)
    page = run(world, machine, leave(ExitReason.RANDOM, access_register=17, access_size=8, rflags=0x8D4 | IF))
    assert page.rflags == IF | 1


def test_an_exception_without_a_table_is_told(world: Any, make_machine: Make, leave: Any) -> None:
    """A guest that has no table for its event crashes with the vector, the place and its registers."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.EXCEPTION, vector=6, rip=0x1234))
    verdict = machine.verdict
    assert verdict is not None and verdict.registers is not None
    assert (verdict.reason, verdict.crashed, verdict.registers.rip) == ("UNHANDLED_EXCEPTION", True, 0x1234)
    assert verdict.detail == "vCPU 0 at rip 0x1234 has event 0x6 and no table to take it through."
    assert machine.ledger.count("vector 6") == 1


def test_a_triple_fault_names_where_it_was(world: Any, make_machine: Make, leave: Any) -> None:
    """The detail of a triple fault names instruction, stack, fault address and table."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.SHUTDOWN, rip=0x10, rsp=0x20, cr2=0x30, cr3=0x40))
    assert machine.verdict is not None
    assert machine.verdict.detail.endswith("rip 0x10, rsp 0x20, cr2 0x30, cr3 0x40.")


def test_a_reason_that_nobody_handles_is_the_end(world: Any, make_machine: Make, leave: Any) -> None:
    """A refusal is named with what the core said, and counted under it."""
    machine = make_machine()

    def refusing(page: Any) -> Any:
        from dataclasses import replace

        return replace(leave(ExitReason.REFUSED)(page), detail="STALE_HANDLE")

    run(world, machine, refusing)
    assert machine.verdict is not None and machine.verdict.crashed
    assert machine.verdict.detail == "The core returned REFUSED STALE_HANDLE."
    assert machine.ledger.count("stale_handle") == 1
    assert machine.ledger.by_reason() == {"exits_refused": 1}
