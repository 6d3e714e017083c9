"""Several VMs on one host: isolation, overcommitted cores, and guests that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from lamina.hypervisor.v1 import hypervisor_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")
STATE = pb.VirtualMachine
KernelOf = Callable[[bytes], bytes]

SPIN = b"\xeb\xfe"
UD2_WITHOUT_TABLES = b"\x0f\x0b"
READ_BEYOND_RAM = bytes.fromhex("48c7c000001004") + b"\x8a\x00"  # mov rax, 0x4100000; mov al, [rax]
STORE_BEYOND_RAM = bytes.fromhex("48b80000000001000000") + b"\x88\x00"  # beyond 4 GiB, where the boot table ends
CLI_HLT = b"\xfa\xf4"
UNKNOWN_PORT = b"\xe4\x70\xe6\x71" + CLI_HLT  # in al, 0x70; out 0x71, al


async def test_the_same_guest_address_is_two_frames(lab: Any) -> None:
    """Two VMs use the same guest addresses and never share a frame."""
    first, _ = await lab.boot()
    second, _ = await lab.boot()
    frames = []
    for name in (first, second):
        listed = await lab.vms.ListGuestPages(pb.ListGuestPagesRequest(name=name, page_size=10000))
        frames.append({page.guest_physical_address: page.frame for page in listed.pages})
    assert frames[0].keys() & frames[1].keys()
    assert not set(frames[0].values()) & set(frames[1].values())
    await lab.stop_vm(first)
    await lab.stop_vm(second)


async def test_one_guest_s_triple_fault_leaves_the_other_running(lab: Any) -> None:
    """The crashed VM keeps its registers for the post-mortem; the other answers as before."""
    victim, _ = await lab.boot()
    healthy, _ = await lab.boot()
    await lab.vms.WriteSerial(pb.WriteSerialRequest(name=victim, data=b"crash\n"))
    crashed = await lab.ended(victim)
    assert (crashed.state, crashed.stop_reason) == (STATE.STATE_CRASHED, "TRIPLE_FAULT")
    assert 0x100000 <= crashed.crash_registers.flow.rip < 0x110000
    assert len(crashed.crash_registers.general) == 16
    assert "alive" in await lab.command(healthy, "echo alive")
    await lab.start_vm(victim)
    assert (await lab.until(victim, b"> ")).startswith(b"Lamina guest kernel")
    await lab.stop_vm(victim)
    await lab.stop_vm(healthy)


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (UD2_WITHOUT_TABLES, STATE.STATE_CRASHED, "TRIPLE_FAULT"),
        (READ_BEYOND_RAM, STATE.STATE_CRASHED, "GUEST_ADDRESS_OUTSIDE_RAM"),
        (STORE_BEYOND_RAM, STATE.STATE_CRASHED, "TRIPLE_FAULT"),
        (CLI_HLT, STATE.STATE_STOPPED, "HALTED"),
        (UNKNOWN_PORT, STATE.STATE_STOPPED, "HALTED"),
    ],
)
async def test_a_bad_kernel_ends_with_its_reason(
    lab: Any, kernel_of: KernelOf, code: bytes, state: Any, reason: str
) -> None:
    """Whatever a guest does to itself, it ends with a name for it."""
    name = await lab.create(kernel=kernel_of(code), memory=65 << 20)
    await lab.start_vm(name)
    vm = await lab.ended(name)
    assert (vm.state, vm.stop_reason) == (state, reason)


async def test_a_spinning_guest_can_be_paused_and_stopped(lab: Any, kernel_of: KernelOf) -> None:
    """A guest that never exits by itself obeys pause, resume and power off, and others get their turn meanwhile."""
    name = await lab.create(kernel=kernel_of(SPIN))
    await lab.start_vm(name)
    other, _ = await lab.boot()
    paused = await lab.vms.PauseVirtualMachine(pb.PauseVirtualMachineRequest(name=name))
    assert paused.state == STATE.STATE_PAUSED
    (vcpu,) = (await lab.vms.ListVcpus(pb.ListVcpusRequest(name=name))).vcpus
    assert vcpu.state == pb.Vcpu.STATE_PAUSED
    (again,) = (await lab.vms.ListVcpus(pb.ListVcpusRequest(name=name))).vcpus
    assert again.instructions == vcpu.instructions
    resumed = await lab.vms.ResumeVirtualMachine(pb.ResumeVirtualMachineRequest(name=name))
    assert resumed.state == STATE.STATE_RUNNING
    stopped = await lab.stop_vm(name)
    assert (stopped.state, stopped.stop_reason) == (STATE.STATE_STOPPED, "POWERED_OFF")
    await lab.stop_vm(other)


async def test_input_to_a_paused_guest_is_answered_after_it_resumes(lab: Any) -> None:
    """What is typed while the vCPUs stand waits in the port."""
    name, output = await lab.boot()
    await lab.vms.PauseVirtualMachine(pb.PauseVirtualMachineRequest(name=name))
    answer = await lab.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=b"echo later\n"))
    assert answer.pending_bytes == 11
    assert len(await lab.serial(name)) == len(output)
    await lab.vms.ResumeVirtualMachine(pb.ResumeVirtualMachineRequest(name=name))
    assert b"later" in await lab.until(name, b"> ", len(output))
    await lab.stop_vm(name)


def xorshift(vcpu: int, rounds: int) -> int:
    """Returns what vCPU `vcpu` of the guest kernel computes."""
    mask = (1 << 64) - 1
    value = 0x9E3779B97F4A7C15 * (vcpu + 1) & mask
    for _ in range(rounds):
        value ^= value << 13 & mask
        value ^= value >> 7
        value ^= value << 17 & mask
    return value


async def test_five_vcpus_share_four_cores(lab: Any) -> None:
    """VMs of 2, 1 and 2 vCPUs compute at once: every result is right and every vCPU had its slices of a core."""
    names = [(await lab.boot(vcpu_count=count))[0] for count in (2, 1, 2)]
    answers = await asyncio.gather(*(lab.command(name, "compute 20000") for name in names))
    for answer, count in zip(answers, (2, 1, 2), strict=True):
        for vcpu in range(count):
            assert f"vcpu {vcpu}: {xorshift(vcpu, 20000):#x}" in answer
    for name, count in zip(names, (2, 1, 2), strict=True):
        vcpus = (await lab.vms.ListVcpus(pb.ListVcpusRequest(name=name))).vcpus
        assert [vcpu.number for vcpu in vcpus] == list(range(count))
        assert all(vcpu.slices > 0 and vcpu.run_time_ns > 0 and 0 <= vcpu.last_core < 4 for vcpu in vcpus)
        assert len({vcpu.registers.control.cr3 for vcpu in vcpus}) == 1
        assert len({vcpu.registers.general[4] for vcpu in vcpus}) == count
        slices = (await lab.vms.ListSlices(pb.ListSlicesRequest(name=name, page_size=4096))).slices
        assert {entry.vcpu for entry in slices} == {vcpu.name for vcpu in vcpus}
        assert all(entry.end != pb.Slice.END_UNSPECIFIED for entry in slices)
        await lab.stop_vm(name)
