"""Power on and off in detail: what reaches guest RAM, what the first instruction finds, what is given back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.hypervisor.conftest import run

from lamina_hypervisor.domain.boot import protocol
from lamina_hypervisor.domain.boot.elf import MAX_SEGMENTS, check_fits, parse_kernel
from lamina_hypervisor.domain.memory.addresses import Gpa
from lamina_hypervisor.domain.vcpus.vcpu import VcpuState
from lamina_hypervisor.domain.vm import Definition, Vm
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.model.machine import ModelMachine
from lamina_hypervisor.engines.model.power import WRITE_BYTES, set_start
from lamina_kit.bus.run_page import DIRTY_ALL, ExitReason, RunPage, Segment
from lamina_kit.errors import InvalidArgument

Make = Callable[..., ModelMachine]
Headers = list[tuple[int, bytes, int]]


def image_of(segments: Headers, entry: int = 0x100000, count: int | None = None, kind: int = 1) -> bytes:
    """Returns an image with segments of (address, bytes, memory size)."""
    at = 64 + 56 * len(segments)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, entry, 64, 0, 0,
        64, 56, len(segments) if count is None else count, 0, 0, 0,
    )  # fmt: skip
    table, body = b"", b""
    for gpa, data, memory in segments:
        table += struct.pack("<IIQQQQQQ", kind, 5, at + len(body), gpa, gpa, len(data), memory, 0x1000)
        body += data
    return header + table + body


def power_on(world: Any, segments: Headers, **fields: Any) -> ModelMachine:
    """Powers on a VM with a kernel of some segments."""
    definition = Definition("web-1", **{"vcpu_count": 1, "memory_bytes": 16 << 20, "kernel_digest": "", **fields})
    vm = Vm("hosts/h1/vms/web-1", 1, 1, definition, 0)
    machine: ModelMachine = world.drive(world.engine.power_on(vm, parse_kernel(image_of(segments))))
    return machine


def ram_of(world: Any) -> dict[int, bytes]:
    """Returns what was written to guest RAM, by address; nothing is written twice."""
    written = world.performed(effects.WriteRam)
    found = {effect.gpa: effect.data for effect in written}
    assert len(found) == len(written)
    return found


# ── what reaches guest RAM ───────────────────────────────────────────────────────────────────────────────────────────


def test_every_piece_of_an_image_reaches_its_address(world: Any) -> None:
    """Each segment is written where it belongs, a large one in pieces of 1 MiB that follow one another."""
    large = bytes(range(256)) * 10_240 + b"tail"
    power_on(world, [(0x800000, large, len(large)), (0x100000, b"first", 5), (0x200000, b"second", 0x5000)])
    found = ram_of(world)
    assert (found[0x100000], found[0x200000]) == (b"first", b"second")
    pieces = [(gpa, data) for gpa, data in sorted(found.items()) if gpa >= 0x800000]
    assert [(gpa - 0x800000, len(data)) for gpa, data in pieces] == [
        (0, WRITE_BYTES), (WRITE_BYTES, WRITE_BYTES), (2 * WRITE_BYTES, len(large) - 2 * WRITE_BYTES),
    ]  # fmt: skip
    assert b"".join(data for _, data in pieces) == large


def test_a_piece_of_just_one_write_is_one(world: Any) -> None:
    """A segment of exactly 1 MiB is written at once, one of a byte more in two pieces."""
    power_on(world, [(0x100000, bytes(WRITE_BYTES), WRITE_BYTES), (0x400000, bytes(WRITE_BYTES + 1), WRITE_BYTES + 1)])
    sizes = [(gpa, len(data)) for gpa, data in sorted(ram_of(world).items()) if gpa >= 0x100000]
    assert sizes == [(0x100000, WRITE_BYTES), (0x400000, WRITE_BYTES), (0x400000 + WRITE_BYTES, 1)]


def test_a_segment_without_bytes_is_left_to_the_zeros(world: Any) -> None:
    """A segment that only takes memory is not written: guest RAM is zero already."""
    power_on(world, [(0x100000, b"code", 4), (0x200000, b"", 0x9000)])
    assert max(ram_of(world)) == 0x100000


def test_the_boot_tables_are_written_for_this_vm(world: Any) -> None:
    """The command line, the number of vCPUs, the size of RAM and the counter's frequency are the VM's own."""
    power_on(world, [(0x100000, b"code", 4)], vcpu_count=3, memory_bytes=32 << 20, command_line="root=/dev/x")
    found = ram_of(world)
    assert found[protocol.COMMAND_LINE] == b"root=/dev/x\0"
    info = struct.unpack("<8sIIQIIQQQQII", found[protocol.INFO])
    assert (info[3], info[4], info[9]) == (32 << 20, 3, 10**9)
    assert found[protocol.GDT] == struct.pack("<3Q", 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
    assert len(found[protocol.PD]) == 8 * 16


def test_ram_is_a_space_of_the_vm(world: Any) -> None:
    """Guest RAM has the size, the memory group and the name of the VM, and the hold is opened on its EPT's root."""
    machine = power_on(world, [(0x100000, b"code", 4)], memory_group="gold")
    (space,) = world.performed(effects.CreateSpace)
    assert (space.memory_bytes, space.group, space.label) == (16 << 20, "gold", "vm web-1 ram")
    (hold,) = world.performed(effects.OpenHold)
    assert (hold.vm, hold.space, hold.eptp) == (machine.name, machine.space, machine.eptp)
    (tables,) = world.performed(effects.AllocateTables)
    assert (tables.owner, tables.group, tables.count) == (machine.owner, "gold", 8)
    assert machine.eptp == machine.ept.root << 12 == 0x1000
    assert machine.ept.spare == 7


def test_two_power_ons_are_two_owners(world: Any, make_machine: Make) -> None:
    """The frames of one power-on are never those of the next: their owner has another name."""
    assert make_machine().owner != make_machine().owner


LEFT_OVER = (
    "rip", "rflags", "cpl", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "star", "lstar", "sfmask", "kernel_gs_base",
    "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit", "tsc_answered", "tsc_aux", "event", "event_error_code",
)  # fmt: skip
"""What a run page may hold when another context had it."""


# ── the first instruction ────────────────────────────────────────────────────────────────────────────────────────────


def test_every_register_has_its_start_value() -> None:
    """Whatever the run page held, a vCPU starts with what the boot protocol says, and all of it counts as changed."""
    page = RunPage(memoryview(bytearray(4096)))
    for number in range(16):
        page.gpr[number] = 0xAA
    for name in LEFT_OVER:
        setattr(page, name, 0xAA)
    for name in ("cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr"):
        page.set_segment(name, Segment(1, 2, 3, 4))
    page.fxsave[:] = b"\xaa" * len(page.fxsave)
    set_start(page, protocol.BootRegisters(rip=0x100040, rsp=0x93000, rdi=0x90000, rsi=3), 3)
    general = dict.fromkeys(range(16), 0) | {4: 0x93000, 7: 0x90000, 6: 3}
    assert [page.gpr[number] for number in range(16)] == [general[number] for number in range(16)]
    assert (page.rip, page.rflags, page.cpl) == (0x100040, 2, 0)
    assert (page.cr0, page.cr2, page.cr3, page.cr4, page.cr8) == (0x8001_0033, 0, 0xB0000, 0x620, 0)
    assert page.efer == 0xD01
    assert (page.star, page.lstar, page.sfmask, page.kernel_gs_base) == (0, 0, 0, 0)
    assert (page.gdtr_base, page.gdtr_limit, page.idtr_base, page.idtr_limit) == (0x91000, 23, 0, 0)
    assert page.segment("cs") == Segment(8, 0, 0xFFFF_FFFF, 0xA09B)
    for name in ("ss", "ds", "es", "fs", "gs"):
        assert page.segment(name) == Segment(16, 0, 0xFFFF_FFFF, 0xC093)
    assert page.segment("ldtr") == Segment(0, 0, 0, 1 << 16)
    assert page.segment("tr") == Segment(0, 0, 0xFFFF, 0x8B)
    state = bytes(page.fxsave)
    assert (state[0:2], state[24:32]) == (b"\x7f\x03", bytes.fromhex("801f0000ffff0000"))
    assert not any(state[2:24]) and not any(state[32:])
    assert (page.tsc_answered, page.tsc_aux, page.event, page.event_error_code) == (0, 3, 0, 0)
    assert page.dirty == DIRTY_ALL


def test_vcpus_have_labels_groups_and_their_own_contexts(world: Any, make_machine: Make) -> None:
    """Contexts are made in order in the VM's run group, each with its vCPU's label and run page."""
    machine = make_machine(vcpus=2)
    made = world.performed(effects.CreateContext)
    assert [effect.label for effect in made] == ["vm web-1 vcpu 0", "vm web-1 vcpu 1"]
    assert {effect.run_group for effect in made} == {machine.run_group}
    assert [vcpu.context.run_page for vcpu in machine.vcpus] == [0, 1]
    assert [vcpu.page.tsc_aux for vcpu in machine.vcpus] == [0, 1]


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_power_off_keeps_the_last_registers(world: Any, make_machine: Make, leave: Any) -> None:
    """Without power a vCPU is off and shows its last registers, whatever becomes of its run page."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.BUDGET, rip=0x1234))
    world.drive(world.engine.power_off(machine))
    machine.vcpus[0].page.rip = 0x9999
    assert machine.vcpus[0].registers.rip == 0x1234
    assert machine.vcpus[0].state is VcpuState.OFF
    assert (machine.space, machine.run_group, machine.holding) == (None, "", False)


def test_power_off_gives_back_exactly_what_there_is(world: Any, make_machine: Make) -> None:
    """Each part goes by its own name: contexts, hold, space, all table frames, run group; nothing fails."""
    machine = make_machine(vcpus=2)
    space, group = machine.space, machine.run_group
    world.log.clear()
    assert world.drive(world.engine.power_off(machine)) == []
    first, second, hold, freed, tables, group_gone = world.log
    assert [effect.context for effect in (first, second)] == [vcpu.context for vcpu in machine.vcpus]
    assert (hold.vm, freed.space, group_gone.name) == (machine.name, space, group)
    assert (tables.owner, tables.frames) == (machine.owner, tuple(range(1, 9)))


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_segments_come_by_address_and_empty_ones_not_at_all() -> None:
    """Segments are ordered by address whatever the order in the file; one without memory is none."""
    kernel = parse_kernel(image_of([(0x300000, b"c", 1), (0x200000, b"", 0), (0x100000, b"a", 0x100000)]))
    assert [segment.gpa for segment in kernel.segments] == [0x100000, 0x300000]
    assert (kernel.start, kernel.end) == (0x100000, 0x300001)


@pytest.mark.parametrize(
    ("segments", "entry", "right"),
    [
        ([(0x100000, b"ab", 2), (0x100002, b"c", 1)], 0x100002, True),
        ([(0x100000, b"ab", 3), (0x100002, b"c", 1)], 0x100000, False),
        ([(0x100000, b"ab", 2)], 0x100001, True),
        ([(0x100000, b"ab", 2)], 0x100002, False),
        ([(0x100000, b"ab", 2)], 0xFFFFF, False),
        ([(0x100000, b"ab", 2), (0x300000, b"", 16)], 0x30000F, True),
        ([((1 << 48) - 4, b"abcd", 4)], (1 << 48) - 1, True),
        ([((1 << 48) - 4, b"abcd", 5)], (1 << 48) - 1, False),
        ([(0x100000, b"abc", 2)], 0x100000, False),
        ([(0x100000 + 16 * n, b"a", 1) for n in range(MAX_SEGMENTS)], 0x100000, True),
        ([(0x100000 + 16 * n, b"a", 1) for n in range(MAX_SEGMENTS + 1)], 0x100000, False),
    ],
)
def test_bounds_of_images(segments: Headers, entry: int, right: bool) -> None:
    """Segments may touch and not overlap, the entry is in one of them, and all numbers have their ends."""
    image = image_of(segments, entry)
    if right:
        assert parse_kernel(image).entry == entry
        return
    with pytest.raises(InvalidArgument):
        parse_kernel(image)


def test_headers_that_end_with_the_file() -> None:
    """A table or a segment may end just where the file does."""
    segments = [(0x100000, b"abcd", 4)]
    assert parse_kernel(image_of(segments)).segments[0].data == b"abcd"
    with pytest.raises(InvalidArgument, match="truncated"):
        parse_kernel(image_of(segments)[:-1])
    bare = image_of([(0x100000, b"", 16)])
    assert parse_kernel(bare).segments[0].data == b""
    with pytest.raises(InvalidArgument, match="program headers"):
        parse_kernel(bare[:-1])
    with pytest.raises(InvalidArgument, match="fewer than an ELF header"):
        parse_kernel(bare[:63])


def test_a_kernel_may_fill_its_room_exactly() -> None:
    """From the first byte above the boot tables to the last of RAM a kernel fits, and not a byte beyond."""
    kernel = parse_kernel(image_of([(0x100000, b"a", 0x100000)]))
    check_fits(kernel, protocol.KERNEL_LOWEST, 2 << 20)
    for lowest, size in ((Gpa(0x100001), 2 << 20), (protocol.KERNEL_LOWEST, (2 << 20) - 1)):
        with pytest.raises(InvalidArgument, match="is not within"):
            check_fits(kernel, lowest, size)
