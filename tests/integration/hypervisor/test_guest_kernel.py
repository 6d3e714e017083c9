"""The guest kernel on real cores and real memory."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import hardware_pb2
from lamina.hypervisor.v1 import hypervisor_pb2 as pb

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.paging import ADDR_MASK

pytestmark = pytest.mark.asyncio(loop_scope="module")
STEP_SHIFTS = (39, 30, 21, 12)


async def test_the_guest_kernel_boots_to_its_prompt(lab: Any) -> None:
    """The banner tells memory, vCPUs, command line and vendors; ring 3 speaks; the prompt comes."""
    name, output = await lab.boot(command_line="colour=blue")
    lines = output.decode().split("\r\n")
    assert lines[0] == "Lamina guest kernel"
    assert "memory: 64 MiB" in lines
    assert "command line: colour=blue" in lines
    assert "processor: LaminaVirt64" in lines
    assert "hypervisor: LaminaLamina" in lines
    assert "user: hello from ring 3; the sum of eight fresh pages is 0x24" in lines
    assert "demand faults: 8" in lines
    assert lines[-1] == "> "
    await lab.stop_vm(name)


async def test_output_exits_equal_serial_bytes(lab: Any) -> None:
    """Each byte on the serial line is one exit of its own, and the ledger adds up."""
    name, _ = await lab.boot()
    await lab.command(name, "echo the quick brown fox")
    output = await lab.serial(name)
    ledger = await lab.vms.GetExitLedger(pb.GetExitLedgerRequest(name=name))
    sent = sum(row.count for row in ledger.rows if row.qualifier == "out 0x3f8 thr")
    assert sent == ledger.serial_output_bytes == len(output)
    assert ledger.total_exits == sum(row.count for row in ledger.rows)
    reasons = {row.reason for row in ledger.rows}
    assert {hardware_pb2.EXIT_REASON_CPUID, hardware_pb2.EXIT_REASON_HLT} <= reasons
    assert ledger.instructions > 1000
    await lab.stop_vm(name)


async def test_commands_are_answered_over_the_serial_port(lab: Any) -> None:
    """What is typed arrives by interrupt and comes back as text."""
    name, _ = await lab.boot()
    assert "hi there" in await lab.command(name, "echo hi there")
    assert "memory: 65536 KiB" in await lab.command(name, "mem")
    assert "0x24" in await lab.command(name, "run")
    assert "echo TEXT" in await lab.command(name, "what")
    (vcpu,) = (await lab.vms.ListVcpus(pb.ListVcpusRequest(name=name))).vcpus
    assert vcpu.interrupts >= 4
    assert vcpu.halt_time_ns > 0 and vcpu.run_time_ns > 0
    await lab.stop_vm(name)


def walk_file(ram: MemoryBus, cr3: int, eptp: int, gva: int) -> tuple[list[int], int, int]:
    """Walks both stages over the bytes of the RAM file; returns (entry addresses, guest physical, host physical)."""
    entries: list[int] = []

    def word(address: int) -> int:
        return int(struct.unpack("<Q", ram.read(address, 8))[0])

    def second_stage(gpa: int) -> int:
        table = eptp
        for shift in STEP_SHIFTS:
            entries.append(table + 8 * (gpa >> shift & 511))
            entry = word(entries[-1])
            assert entry & 7, f"{gpa:#x} is not mapped"
            table = entry & ADDR_MASK
        return table | gpa & 0xFFF

    table = cr3 & ADDR_MASK
    for shift in STEP_SHIFTS:
        entries.append(second_stage(table + 8 * (gva >> shift & 511)))
        entry = word(entries[-1])
        assert entry & 1
        if entry & 0x80 and shift in (21, 30):
            gpa = entry & ADDR_MASK & ~((1 << shift) - 1) | gva & (1 << shift) - 1
            return entries, gpa, second_stage(gpa)
        table = entry & ADDR_MASK
    gpa = table | gva & 0xFFF
    return entries, gpa, second_stage(gpa)


@pytest.mark.parametrize("gva", [0x1000, 0x1008, 0x100400, 0x8000000000])
async def test_a_translation_equals_a_walk_over_the_ram_file(lab: Any, gva: int) -> None:
    """Every table entry that the hypervisor names is found again in the bytes of RAM, in the same order."""
    name, _ = await lab.boot()
    found = await lab.vms.TranslateAddress(pb.TranslateAddressRequest(name=name, address=gva))
    with MemoryBus.open(lab.folder / "h1.ram") as ram:
        entries, gpa, hpa = walk_file(ram, found.cr3, found.eptp, gva)
        visited = [step for guest in found.guest_steps for step in (*guest.ept_steps, guest.entry)]
        visited += found.ept_steps
        assert [step.entry_address for step in visited] == entries
        assert all(struct.unpack("<Q", ram.read(step.entry_address, 8))[0] == step.entry for step in visited)
    assert (found.guest_physical_address, found.host_physical_address) == (gpa, hpa)
    assert len(found.guest_steps) in (3, 4)
    await lab.stop_vm(name)


async def test_the_textbook_s_page_is_where_the_kernel_put_it(lab: Any) -> None:
    """Guest virtual 0x1000 is guest physical 0x5000, which lies in some frame of the host that holds its content."""
    name, _ = await lab.boot()
    found = await lab.vms.TranslateAddress(pb.TranslateAddressRequest(name=name, address=0x1000))
    assert found.outcome == pb.TranslateAddressResponse.OUTCOME_TRANSLATED
    assert found.guest_physical_address == 0x5000
    with MemoryBus.open(lab.folder / "h1.ram") as ram:
        assert ram.read(found.host_physical_address, 6) == b"ANIMAL"
    assert found.ept_steps[-1].bits[:3] == ["R", "W", "X"]
    await lab.stop_vm(name)


async def test_the_hypervisor_and_the_core_walk_alike(lab: Any) -> None:
    """The hardware's own walk of the same address visits the same entries."""
    name, _ = await lab.boot()
    found = await lab.vms.TranslateAddress(pb.TranslateAddressRequest(name=name, address=0x1000))
    walked = await lab.cpu.Translate(
        hardware_pb2.TranslateRequest(root=found.cr3, eptp=found.eptp, address=0x1000, access=access_pb2.ACCESS_READ)
    )
    ours = [step for guest in found.guest_steps for step in (*guest.ept_steps, guest.entry)]
    ours += found.ept_steps
    assert [step.entry_address for step in walked.steps] == [step.entry_address for step in ours]
    assert walked.physical_address == found.host_physical_address
    await lab.stop_vm(name)


@pytest.mark.parametrize(
    ("address", "access", "user", "outcome"),
    [
        (0, access_pb2.ACCESS_READ, False, "OUTCOME_PAGE_FAULT"),
        (0x1000, access_pb2.ACCESS_READ, True, "OUTCOME_PAGE_FAULT"),
        (0x8000000000, access_pb2.ACCESS_WRITE, True, "OUTCOME_PAGE_FAULT"),
        (0x3F00000, access_pb2.ACCESS_READ, False, "OUTCOME_EPT_VIOLATION"),
        (1 << 50, access_pb2.ACCESS_READ, False, "OUTCOME_NOT_CANONICAL"),
    ],
)
async def test_a_translation_ends_where_the_core_s_would(
    lab: Any, address: int, access: Any, user: bool, outcome: str
) -> None:
    """Null pointer, user's access to the kernel, write to read-only code, page never touched, wild pointer."""
    name, _ = await lab.boot()
    request = pb.TranslateAddressRequest(name=name, address=address, access=access, user=user)
    found = await lab.vms.TranslateAddress(request)
    assert pb.TranslateAddressResponse.Outcome.Name(found.outcome) == outcome
    await lab.stop_vm(name)


async def test_guest_pages_are_listed_with_their_frames(lab: Any) -> None:
    """Each page that the EPT maps is shown once, by address, and no two share a frame."""
    name, _ = await lab.boot()
    pages: list[Any] = []
    token = ""
    while True:
        listed = await lab.vms.ListGuestPages(pb.ListGuestPagesRequest(name=name, page_size=7, page_token=token))
        pages += listed.pages
        token = listed.next_page_token
        if not token:
            break
    addresses = [page.guest_physical_address for page in pages]
    vm = await lab.get(name)
    assert addresses == sorted(addresses)
    assert len(pages) == vm.mapped_pages == len({page.frame for page in pages})
    assert 0x5000 in addresses
    await lab.stop_vm(name)


async def test_the_guest_powers_itself_off(lab: Any) -> None:
    """`halt` stops all vCPUs with interrupts off; `off` asks the hypervisor."""
    for command, reason in (("halt", "HALTED"), ("off", "GUEST_POWER_OFF")):
        name, _ = await lab.boot(vcpu_count=2)
        await lab.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=command.encode() + b"\n"))
        vm = await lab.ended(name)
        assert vm.state == pb.VirtualMachine.STATE_STOPPED
        assert vm.stop_reason == reason


async def test_the_kernel_s_text_is_what_runs(lab: Any, tmp_path: Path) -> None:
    """Change a string in the sources, and the guest says the new one."""
    from lamina_cli.guests.kernel import compile as compile_kernel

    source = Path(__file__).parents[3] / "guests" / "kernel"
    for file in source.iterdir():
        (tmp_path / file.name).write_text(file.read_text().replace("Lamina guest kernel", "Another kernel"))
    name, output = await lab.boot(kernel=compile_kernel(tmp_path))
    assert output.startswith(b"Another kernel\r\n")
    await lab.stop_vm(name)
