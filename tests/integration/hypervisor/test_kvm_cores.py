"""VMs over the hardware's engine `kvm`: what goes another way there than over modelled cores."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from lamina.mmu.v1 import mmu_pb2
from tests.integration.hypervisor.lab import Lab

from lamina_hypervisor.domain.vcpus import cpuid
from lamina_hypervisor.domain.vcpus.processor import Processor
from lamina_kit.engines import engines_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_time("the cores are the host's processors")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["kvm"])
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A running host whose cores are its processors."""
    reasons = engines_of("hardware")[request.param].missing()
    if reasons:
        pytest.skip("; ".join(reasons))
    folder = Path(tempfile.mkdtemp(prefix="lamina-hv-"))
    made = Lab(folder)
    try:
        await made.start(cores=request.param)
        yield made
    finally:
        await made.stop()
        shutil.rmtree(folder)


async def reclaim(lab: Any, name: str) -> int:
    """Takes all pages of a VM; returns how many."""
    vm = await lab.get(name)
    space = await lab.mmu("Spaces").GetSpace(mmu_pb2.GetSpaceRequest(name=vm.space))
    request = mmu_pb2.ReclaimRequest(handle=space.handle, pages=vm.mapped_pages)
    return int((await lab.mmu("Spaces").Reclaim(request)).reclaimed_pages)


async def test_a_guest_boots_and_calls_through_the_port(lab: Any) -> None:
    """Two vCPUs find each other, ring 3 speaks, and yields, wake-ups and power-off are exits for the port."""
    name, output = await lab.boot(vcpu_count=2, command_line="colour=blue")
    lines = output.decode().split("\r\n")
    assert {"vcpus: 2", "command line: colour=blue", "processor: LaminaVirt64", "demand faults: 8"} <= set(lines)
    assert "user: hello from ring 3; the sum of eight fresh pages is 0x24" in lines
    assert "vcpu 1: 0x428ac7cd103525cd" in await lab.command(name, "compute 1000")
    await lab.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=b"off\n"))
    vm = await lab.ended(name)
    assert (vm.state, vm.stop_reason) == (pb.VirtualMachine.STATE_STOPPED, "GUEST_POWER_OFF")
    ledger = await lab.vms.GetExitLedger(pb.GetExitLedgerRequest(name=name))
    calls = {row.qualifier for row in ledger.rows if row.qualifier.startswith("out 0xca1")}
    assert calls == {"out 0xca1 yield", "out 0xca1 wake", "out 0xca1 power off"}


async def test_all_of_a_guest_is_taken_and_it_goes_on(lab: Any) -> None:
    """Code, data, page tables, descriptor tables and stacks come back when the guest needs them, at both rings."""
    name, _ = await lab.boot()
    for command, answer in (("run", "0x24"), ("echo still here", "still here"), ("mem", "0x5063")):
        assert await reclaim(lab, name) > 0
        assert answer in await lab.command(name, command)
    assert (await lab.get(name)).state == pb.VirtualMachine.STATE_RUNNING
    await lab.stop_vm(name)


async def test_a_guest_stands_while_it_is_paused(lab: Any) -> None:
    """A paused VM answers nothing; what was typed meanwhile is answered when it goes on."""
    name, output = await lab.boot()
    await lab.vms.PauseVirtualMachine(pb.PauseVirtualMachineRequest(name=name))
    before = (await lab.vms.GetExitLedger(pb.GetExitLedgerRequest(name=name))).total_exits
    await lab.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=b"echo on\n"))
    assert await lab.serial(name) == output
    assert (await lab.vms.GetExitLedger(pb.GetExitLedgerRequest(name=name))).total_exits == before
    await lab.vms.ResumeVirtualMachine(pb.ResumeVirtualMachineRequest(name=name))
    assert b"on\r\n> " in await lab.until(name, b"on\r\n> ", len(output))
    await lab.stop_vm(name)


async def test_cpuid_says_the_same_as_on_modelled_cores(lab: Any, kernel_of: Any) -> None:
    """Leaves, those that do not exist too, are answered from the VM's table; features may be the processor's too."""
    leaves = (0, 1, 2, 4, 6, 0xB, 0x15, 0x4000_0000, 0x4000_0001, 0x4000_0002, 0x8000_0000, 0x8000_0001, 0x8000_0003,
              0x8000_0008, 0x8000_0009, 0xFFFF_FFFF)  # fmt: skip
    at, code = 0x80000, b""
    for number, leaf in enumerate(leaves):
        code += b"\xb8" + leaf.to_bytes(4, "little") + b"\x31\xc9\x0f\xa2"  # mov eax, leaf; xor ecx, ecx; cpuid
        for place, register in enumerate((0x04, 0x1C, 0x0C, 0x14)):  # mov [...], eax; ebx; ecx; edx
            code += bytes([0x89, register, 0x25]) + (at + 16 * number + 4 * place).to_bytes(4, "little")
    code += b"\x66\xba\xf8\x03\xb0.\xee\xeb\xfe"  # mov dx, 0x3f8; mov al, '.'; out dx, al; jmp $
    name = await lab.create(kernel=kernel_of(code), memory=8 << 20)
    await lab.start_vm(name)
    await lab.until(name, b".")
    space = await lab.mmu("Spaces").GetSpace(mmu_pb2.GetSpaceRequest(name=(await lab.get(name)).space))
    request = mmu_pb2.ReadSpaceRequest(handle=space.handle, address=at, size_bytes=16 * len(leaves))
    found = (await lab.mmu("Spaces").ReadSpace(request)).data
    told = [tuple(memoryview(found)[16 * n : 16 * n + 16].cast("I")) for n in range(len(leaves))]
    hz = told[leaves.index(0x4000_0001)][1] * 1000
    assert hz > 100_000_000
    wanted = [tuple(cpuid.answer(leaf, 0, 1, Processor(traps=False, tsc_hz=hz))) for leaf in leaves]
    (*ids, ecx, edx), ours = told.pop(1), wanted.pop(1)  # KVM that emulates ring 0 adds the processor's to features
    assert tuple(ids) == ours[:2] and ecx & ours[2] == ours[2] and edx & ours[3] == ours[3]
    assert told == wanted
    await lab.stop_vm(name)
