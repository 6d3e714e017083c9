"""Layers below that are somewhere else, or gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from lamina.mmu.v1 import mmu_pb2

from lamina_hypervisor.config import HypervisorConfig
from lamina_hypervisor.engines import effects
from lamina_kit.layer.service import connect, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_layers_below_may_be_behind_sockets(lab: Any, short_dir: Path) -> None:
    """With hardware and MMU served on UNIX sockets a guest boots and swaps as it does in one process."""
    served, inside = [], dict(lab.channels)
    for layer in ("hardware", "mmu"):
        address = f"unix:{short_dir}/{layer}.sock"
        served.append(await serve(lab.services[layer], [address], lab.states[layer]))
        lab.channels[layer] = connect(address)
    await lab.services["hypervisor"].stop()
    await lab.layer("hypervisor", HypervisorConfig())
    name, output = await lab.boot(vcpu_count=2)
    assert output.endswith(b"> ")
    assert "wrong words: 0" in await lab.command(name, "sum 2")
    await lab.services["hypervisor"].stop()
    for layer in ("hardware", "mmu"):
        await lab.channels[layer].close()
        lab.channels[layer] = inside[layer]
    for server in served:
        await server.stop()
    await lab.layer("hypervisor", HypervisorConfig())
    assert (await lab.get(name)).stop_reason == "HYPERVISOR_STOPPED"


async def test_a_start_goes_on_when_its_caller_gives_up(lab: Any) -> None:
    """A caller whose deadline passes leaves no half-made VM: it runs, or it is stopped."""
    name = await lab.create(vcpu_count=4)
    call = lab.vms.StartVirtualMachine(pb.StartVirtualMachineRequest(name=name), timeout=0.003)
    code = await call.code()
    assert code.name in ("OK", "DEADLINE_EXCEEDED")
    assert (await lab.until(name, b"> ")).endswith(b"> ")
    assert (await lab.get(name)).state == pb.VirtualMachine.STATE_RUNNING
    await lab.stop_vm(name)


async def test_a_holder_that_does_not_answer_is_fenced(lab: Any) -> None:
    """When a revocation stays unanswered for a second the VM loses its memory, and says so; its host goes on."""
    name, _ = await lab.boot()
    space = await lab.mmu("Spaces").GetSpace(mmu_pb2.GetSpaceRequest(name=(await lab.get(name)).space))
    perform = lab.services["hypervisor"]._hypervisor._runner.perform

    async def say_nothing(effect: effects.Acknowledge) -> None:
        """Keeps the acknowledgement."""

    perform.on(effects.Acknowledge, say_nothing)
    try:
        await lab.mmu("Spaces").Reclaim(mmu_pb2.ReclaimRequest(handle=space.handle, pages=4))
        vm = await lab.ended(name)
    finally:
        perform.on(effects.Acknowledge, lab.services["hypervisor"]._memory.acknowledge)
    assert (vm.state, vm.stop_reason) == (pb.VirtualMachine.STATE_CRASHED, "MEMORY_FENCED")
    other, output = await lab.boot()
    assert output.endswith(b"> ")
    await lab.stop_vm(other)


async def test_a_memory_layer_that_goes_takes_its_vms_with_it(lab: Any) -> None:
    """Without memory there is no VM: it is crashed with that reason, and the service still answers."""
    name, _ = await lab.boot()
    await lab.channels["mmu"].server.stop(0)  # as a process that ends: every call breaks
    vm = await lab.ended(name)
    assert (vm.state, vm.stop_reason) == (pb.VirtualMachine.STATE_CRASHED, "HOST_UNAVAILABLE")
    listed = await lab.vms.ListVirtualMachines(pb.ListVirtualMachinesRequest())
    assert name in [entry.name for entry in listed.virtual_machines]
