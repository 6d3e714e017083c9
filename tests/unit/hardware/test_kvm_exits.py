"""What exits of KVM mean, over a vCPU made of bytes: both kinds of KVM, before the instruction and behind it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lamina_hardware.domain.contexts.exit_controls import ExitControls, PostedWrite
from lamina_hardware.io.kvm import abi, exits
from lamina_hardware.io.register_file import scratch
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import Activity, ExitReason, ExitRecord

RIP, DATA = 0x1000, 0x1000
RAX, RDI, RIP_AT = 0, 5, 16
"""Places in KVM's order of registers."""


class Cpu:
    """The side of a vCPU that exits see. `does` is what the rest of the instruction changes when KVM finishes it."""

    def __init__(self, does: Callable[[list[int]], None] = lambda registers: None) -> None:
        self.bytes = memoryview(bytearray(8192))
        self.words = self.bytes[:2048].cast("Q")
        self.does = does
        self.finished = 0
        self.out_is_behind = self.unfinished = self.asks = False
        self.answer: int | None = None
        self.items: Any = None
        self.kept: Any = None
        self.plain_out = -1
        self.may_interrupt = False
        self.put_registers((*range(100, 116), RIP, 0x202))

    @property
    def rip(self) -> int:
        """RIP."""
        return self.registers()[RIP_AT]

    @property
    def reason(self) -> int:
        """Why KVM left."""
        return int.from_bytes(self.bytes[abi.RUN_REASON : abi.RUN_REASON + 4], "little")

    def registers(self) -> tuple[int, ...]:
        """Returns registers in KVM's order."""
        return abi.REGS.unpack_from(self.bytes, abi.RUN_REGS)

    def put_registers(self, values: tuple[int, ...]) -> None:
        """Sets registers."""
        abi.REGS.pack_into(self.bytes, abi.RUN_REGS, *values)

    def finish(self) -> None:
        """Does the rest of the instruction."""
        self.finished += 1
        self.unfinished = False
        registers = list(self.registers())
        self.does(registers)
        self.put_registers(tuple(registers))

    def takes_interrupts(self) -> bool:
        """Whether it may be interrupted."""
        return self.may_interrupt


def moves_rip(registers: list[int]) -> None:
    """Goes behind an instruction of two bytes."""
    registers[RIP_AT] += 2


class Given:
    """Controls of a context, with its shadow registers."""

    def __init__(self, **controls: Any) -> None:
        self.controls = ExitControls(**controls)
        self.shadows = list(self.controls.shadows)

    def set_shadow(self, number: int, value: int) -> None:
        """Sets a shadow register."""
        self.shadows = [(number, value)]


def exit_of(cpu: Cpu, reason: int, given: Given | None = None, error: int = 0, **more: Any) -> tuple[Any, Any]:
    """Returns what an exit becomes, and the state that it leaves."""
    cpu.bytes[abi.RUN_REASON : abi.RUN_REASON + 4] = reason.to_bytes(4, "little")
    parts: dict[str, Any] = {"hlt": True, "waits": False, "asleep": False, "tries": 0, "told": ""}
    at: Any = SimpleNamespace(
        vcpu=cpu, page=scratch(), given=given, controls=given and given.controls, code=lambda: b"\xee\x90",
        **parts | more,
    )  # fmt: skip
    return exits.handle(at, error), at


def io(cpu: Cpu, direction: int, port: int = 0x3F8, size: int = 1, count: int = 1, data: bytes = b"") -> Cpu:
    """Puts an access to a port."""
    abi.IO_BODY.pack_into(cpu.bytes, abi.RUN_BODY, direction, size, port, count, DATA)
    cpu.bytes[DATA : DATA + len(data)] = data
    return cpu


def out(port: int = 0x3F8, size: int = 1, data: int = 0x41) -> ExitRecord:
    """Returns the record of an OUT."""
    return ExitRecord(reason=ExitReason.IO, port=port, io_size=size, io_direction=1, io_data=data, io_count=1)


def test_out_where_kvm_stops_behind_it() -> None:
    """RIP does not move when KVM finishes: that is learnt at the first OUT, and no later one is finished."""
    cpu = Cpu()
    for _ in range(3):
        assert exit_of(io(cpu, 1, data=b"A"), abi.EXIT_IO)[0] == out()
    assert (cpu.finished, cpu.rip, cpu.out_is_behind) == (1, RIP, True)


def test_out_where_kvm_stops_before_it() -> None:
    """Each OUT is finished, so that RIP is behind it when its exit is told."""
    cpu = Cpu(moves_rip)
    for n in range(1, 4):
        assert exit_of(io(cpu, 1, size=2, data=b"\x34\x12"), abi.EXIT_IO)[0] == out(size=2, data=0x1234)
        assert (cpu.finished, cpu.rip, cpu.out_is_behind) == (n, RIP + 2 * n, False)


@pytest.mark.parametrize(
    ("port", "size", "exits_"),
    [(0x10, 1, True), (0x12, 1, True), (0x13, 1, False), (0x0F, 1, False), (0x0F, 2, True), (0x0D, 2, False),
     (0x0D, 4, True), (0x12, 4, True)],
)  # fmt: skip
def test_ports_that_exit(port: int, size: int, exits_: bool) -> None:
    """An access exits when it touches a port of a range; another OUT is for nobody, and another IN reads ones."""
    given = Given(ports=((0x10, 3),))
    cpu = Cpu()
    found, _ = exit_of(io(cpu, 1, port, size, data=bytes(size)), abi.EXIT_IO, given)
    assert found == (out(port, size, 0) if exits_ else None)
    cpu = Cpu()
    found, _ = exit_of(io(cpu, 0, port, size, data=bytes(8)), abi.EXIT_IO, given)
    assert (found is not None) == exits_
    assert bytes(cpu.bytes[DATA : DATA + 8]) == (bytes(8) if exits_ else (b"\xff" * size).ljust(8, b"\0"))
    assert cpu.unfinished is not exits_


def test_all_ports_exit() -> None:
    """So they do without controls, and when all are asked for."""
    for given in (None, Given(all_ports=True)):
        assert exit_of(io(Cpu(), 1, data=b"A"), abi.EXIT_IO, given)[0] == out()


def test_in_leaves_the_register_to_the_holder() -> None:
    """RIP is behind the IN, RAX as it was: the holder puts the answer there."""

    def does(registers: list[int]) -> None:
        moves_rip(registers)
        registers[RAX] = 0

    cpu = Cpu(does)
    found, _ = exit_of(io(cpu, 0, data=b"\x55"), abi.EXIT_IO)
    assert found == ExitRecord(reason=ExitReason.IO, port=0x3F8, io_size=1, io_count=1)
    assert (cpu.registers()[RAX], cpu.rip, cpu.asks) == (100, RIP + 2, False)


def test_ins_stays_and_asks() -> None:
    """The item of an INS is stored when the answer is there: registers are as before, and the answer is given once."""

    def does(registers: list[int]) -> None:
        moves_rip(registers)
        registers[RDI] += 1

    cpu = Cpu(does)
    before = cpu.registers()
    _, at = exit_of(io(cpu, 0), abi.EXIT_IO)
    assert (cpu.registers(), cpu.asks, cpu.answer) == (before, True, None)
    at.page.store_exit(ExitRecord(reason=ExitReason.IO, io_data=0x1234))
    assert exits.answer_input(at) is None
    assert (cpu.asks, cpu.answer) == (False, 0x1234)
    assert exit_of(io(cpu, 0, data=b"\0"), abi.EXIT_IO)[0] is None
    assert (cpu.bytes[DATA], cpu.answer, cpu.unfinished) == (0x34, None, True)


def test_items_of_ins_that_kvm_wants_at_once() -> None:
    """Each has an exit of its own; the answers lie behind one another; after the last the instruction goes on."""
    cpu = Cpu()
    found, at = exit_of(io(cpu, 0, size=2, count=3), abi.EXIT_IO)
    for answer in (0x1111, 0x2222):
        assert found == ExitRecord(reason=ExitReason.IO, port=0x3F8, io_size=2, io_count=1)
        at.page.store_exit(ExitRecord(reason=ExitReason.IO, io_data=answer))
        found = exits.answer_input(at)
    at.page.store_exit(ExitRecord(reason=ExitReason.IO, io_data=0x3333))
    assert exits.answer_input(at) is None
    assert bytes(cpu.bytes[DATA : DATA + 6]) == bytes.fromhex("111122223333")
    assert cpu.items is None


@pytest.mark.parametrize(
    ("entry", "hit"),
    [
        (PostedWrite(slot=3, port=0x3F8, gpa=None, size=0, value=None), True),
        (PostedWrite(slot=3, port=0x3F8, gpa=None, size=1, value=0x41), True),
        (PostedWrite(slot=3, port=0x3F8, gpa=None, size=2, value=None), False),
        (PostedWrite(slot=3, port=0x3F8, gpa=None, size=0, value=0x42), False),
        (PostedWrite(slot=3, port=0x3F9, gpa=None, size=0, value=None), False),
        (PostedWrite(slot=3, port=None, gpa=0x3F8, size=0, value=None), False),
    ],
)
def test_posted_writes_to_ports(entry: PostedWrite, hit: bool) -> None:
    """A write to a doorbell is counted in its slot with its value and exits no more; another one exits."""
    found, at = exit_of(io(Cpu(), 1, data=b"A"), abi.EXIT_IO, Given(all_ports=True, posted=(entry,)))
    assert (found is None) is hit
    place = (run_page.POSTED_OFFSET >> 3) + 2 * 3
    assert list(at.page.words[place : place + 2]) == ([1, 0x41] if hit else [0, 0])


def mmio(cpu: Cpu, gpa: int, data: bytes, writes: bool) -> Cpu:
    """Puts an access to memory."""
    abi.MMIO_BODY.pack_into(cpu.bytes, abi.RUN_BODY, gpa, data.ljust(8, b"\0"), len(data), writes)
    return cpu


DEVICES = {"devices": ((0x10_0000, 0x1000),)}


def test_a_store_to_a_device() -> None:
    """It is told with its value, and the instruction is finished; one to a doorbell is counted alone."""
    posted = (PostedWrite(slot=0, port=None, gpa=0x10_0010, size=4, value=None),)
    cpu = Cpu(moves_rip)
    found, _ = exit_of(mmio(cpu, 0x10_0FFC, b"\4\3\2\1", True), abi.EXIT_MMIO, Given(**DEVICES, posted=posted))
    assert found == ExitRecord(
        reason=ExitReason.MMIO, gpa=0x10_0FFC, access=run_page.ACCESS_WRITE, access_size=4, access_value=0x0102_0304
    )
    assert (cpu.finished, cpu.rip) == (1, RIP + 2)
    cpu = Cpu(moves_rip)
    found, at = exit_of(mmio(cpu, 0x10_0010, b"\4\3\2\1", True), abi.EXIT_MMIO, Given(**DEVICES, posted=posted))
    assert (found, cpu.finished, cpu.unfinished) == (None, 0, True)
    assert at.page.words[(run_page.POSTED_OFFSET >> 3) + 1] == 0x0102_0304


@pytest.mark.parametrize(("place", "register"), [(0, 0), (1, 3), (2, 1), (3, 2), (4, 6), (7, 5), (15, 15)])
def test_a_load_from_a_device(place: int, register: int) -> None:
    """The register that the instruction fills is told by its number; its value waits for the answer."""
    cpu = Cpu()

    def does(registers: list[int]) -> None:
        moves_rip(registers)
        registers[place] = int.from_bytes(cpu.bytes[abi.RUN_BODY + 8 : abi.RUN_BODY + 16], "little")

    cpu.does = does
    before = cpu.registers()
    found, _ = exit_of(mmio(cpu, 0x10_0000, bytes(8), False), abi.EXIT_MMIO, Given(**DEVICES))
    assert found == ExitRecord(
        reason=ExitReason.MMIO, gpa=0x10_0000, access=run_page.ACCESS_READ, access_size=8, access_register=register
    )
    assert cpu.registers() == (*before[:RIP_AT], RIP + 2, before[-1])


@pytest.mark.parametrize("changed", [(), (1, 2), (0, 17)])
def test_a_load_that_is_no_move(changed: tuple[int, ...]) -> None:
    """What changes no register, two, or flags is told without one, and RIP stays on it."""

    def does(registers: list[int]) -> None:
        moves_rip(registers)
        for place in changed:
            registers[place] ^= 0x40

    cpu = Cpu(does)
    before = cpu.registers()
    found, _ = exit_of(mmio(cpu, 0x10_0000, bytes(8), False), abi.EXIT_MMIO, Given(**DEVICES))
    assert found == ExitRecord(reason=ExitReason.MMIO, gpa=0x10_0000, access=run_page.ACCESS_READ)
    assert cpu.registers() == before


def test_halts() -> None:
    """HLT exits, or the context sleeps; with an interrupt that may be taken now it ends at once."""
    assert exit_of(Cpu(), abi.EXIT_HLT)[0] == ExitRecord(reason=ExitReason.HLT)
    found, at = exit_of(Cpu(), abi.EXIT_HLT, hlt=False)
    assert (found, at.asleep, at.page.activity) == (None, True, Activity.HALTED)
    cpu = Cpu()
    assert exit_of(cpu, abi.EXIT_HLT, waits=True)[0] == ExitRecord(reason=ExitReason.HLT)
    cpu.may_interrupt = True
    found, at = exit_of(cpu, abi.EXIT_HLT, waits=True, hlt=False)
    assert (found, at.asleep) == (None, False)
    assert exit_of(cpu, abi.EXIT_HLT)[0] == ExitRecord(reason=ExitReason.HLT)


def test_the_interrupt_window() -> None:
    """It is told to who asked for it."""
    assert exit_of(Cpu(), abi.EXIT_IRQ_WINDOW)[0] is None
    assert exit_of(Cpu(), abi.EXIT_IRQ_WINDOW, Given())[0] is None
    found, _ = exit_of(Cpu(), abi.EXIT_IRQ_WINDOW, Given(interrupt_window=True))
    assert found == ExitRecord(reason=ExitReason.INTERRUPT_WINDOW)


def test_what_nobody_knows_ends_the_context() -> None:
    """Another reason, or an error of the kernel, is an end that says which, where, and on what bytes."""
    for reason, error, number in ((99, 0, 99), (abi.EXIT_HLT, 22, 22)):
        found, at = exit_of(Cpu(), reason, error=error)
        assert found == ExitRecord(reason=ExitReason.ENTRY_FAILED, qualification=number)
        assert "0x1000" in at.told and "ee 90" in at.told


def msr(cpu: Cpu, number: int, value: int = 0) -> Cpu:
    """Puts an access to a model-specific register."""
    abi.MSR_BODY.pack_into(cpu.bytes, abi.RUN_BODY, 9, 0, number, value)
    return cpu


@pytest.mark.parametrize("write", [False, True])
def test_model_specific_registers(write: bool) -> None:
    """One that is named exits behind the instruction, a shadow is read and written here, any other is refused."""
    reason = abi.EXIT_WRMSR if write else abi.EXIT_RDMSR
    named = {"msr_writes" if write else "msr_reads": ((0x10, 2),)}
    record = ExitRecord(reason=ExitReason.MSR, io_direction=int(write), io_data=0x77 if write else 0)

    def does(registers: list[int]) -> None:
        moves_rip(registers)
        registers[RAX] = 0

    for given, number in ((None, 0x99), (Given(all_msrs=True), 0x99), (Given(**named), 0x10), (Given(**named), 0x11)):
        cpu = msr(Cpu(does), number, 0x77)
        assert exit_of(cpu, reason, given)[0] == record
        assert (cpu.registers()[RAX], cpu.rip, cpu.bytes[abi.RUN_BODY]) == (100, RIP + 2, 0)
    for number in (0x0F, 0x12, 0x174):  # the last is the vCPU's own, whose value KVM refuses
        cpu = msr(Cpu(does), number, 0x77)
        assert exit_of(cpu, reason, Given(**named))[0] is None
        assert (cpu.bytes[abi.RUN_BODY], cpu.rip, cpu.unfinished) == (1, RIP, True)
    given = Given(shadows=((0x8B, 0x55),))
    cpu = msr(Cpu(does), 0x8B, 0x77)
    assert exit_of(cpu, reason, given)[0] is None
    assert abi.MSR_BODY.unpack_from(cpu.bytes, abi.RUN_BODY) == (0, 0, 0x8B, 0x77 if write else 0x55)
    assert given.shadows == [(0x8B, 0x77 if write else 0x55)]
