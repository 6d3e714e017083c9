"""What breaks in one layer is met in the layers above, is an event with its cause, and passes once it is mended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
from lamina.hypervisor.v1 import hypervisor_pb2
from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from tests.simulation.actors import Frames
from tests.simulation.calm import HOST, Calm, calm

from lamina_cli.demo.cluster import is_ready
from lamina_cli.output.objects import body
from lamina_cli.stack import virtual_run
from lamina_kit.rpc.status import rpc_error

NODE = f"nodes/{HOST}"


def told(story: Callable[[Calm], Awaitable[None]]) -> None:
    """Tells a story in a calm stack, which has to hold at its end."""

    async def whole() -> None:
        async with calm() as at:
            await story(at)
            await at.hold()

    virtual_run.run(1, whole())


def test_a_lost_core_takes_no_work_and_the_rest_goes_on() -> None:
    """The core is LOST until it is mended, a VM boots on the other, and the last core cannot be lost."""

    async def story(at: Calm) -> None:
        cpu = at.stub("hardware", hardware_pb2_grpc.CpuStub)

        async def states() -> list[int]:
            return [core.state for core in (await cpu.ListCores(hardware_pb2.ListCoresRequest())).cores]

        core = f"hosts/{HOST}/cores/0"
        fault = await at.breaks("hardware", "core-lost", core)
        assert (await states())[0] == hardware_pb2.Core.STATE_LOST
        assert await refusal(at.breaks("hardware", "core-lost", f"hosts/{HOST}/cores/1")) == "CORE_IS_LAST"
        await at.guest.works()
        await at.mends("hardware", fault)
        assert hardware_pb2.Core.STATE_LOST not in await states()
        assert await at.caused("hardware", core, fault) == ["core.lost", "core.returned", "fault.cleared"]

    told(story)


def test_a_crashed_machine_says_why_and_starts_again() -> None:
    """The VM is CRASHED with FAULT_INJECTED, what it had below is given back, and it boots to its prompt again."""

    async def story(at: Calm) -> None:
        await at.guest.start()
        fault = await at.breaks("hypervisor", "vm-crash", at.guest.name)
        vm = await at.guest.vms.GetVirtualMachine(hypervisor_pb2.GetVirtualMachineRequest(name=at.guest.name))
        assert (vm.state, vm.stop_reason) == (hypervisor_pb2.VirtualMachine.STATE_CRASHED, "FAULT_INJECTED")
        assert not vm.space and not vm.run_group
        assert await at.caused("hypervisor", at.guest.name, fault) == ["vm.crashed"]
        assert await refusal(at.breaks("hypervisor", "vm-crash", at.guest.name)) == "VM_STATE"
        await at.guest.start()

    told(story)


def test_a_lost_node_is_not_ready_until_it_answers_again() -> None:
    """The node's lease runs out, nothing is scheduled there, and it is Ready again once the network is back."""

    async def story(at: Calm) -> None:
        fault = await at.breaks("orchestrator", "node-lost", NODE)
        await asyncio.sleep(60)
        assert not is_ready(await node(at))
        await at.mends("orchestrator", fault)
        await asyncio.sleep(60)
        assert is_ready(await node(at))
        assert "fault.cleared" in await at.caused("orchestrator", NODE, fault)

    told(story)


def test_a_cut_cable_carries_no_frame_until_it_is_mended() -> None:
    """The port's device hears nothing, the port's events name the fault, and afterwards frames arrive again."""

    async def story(at: Calm) -> None:
        port = f"{Frames.SWITCH}/ports/bob"
        fault = await at.breaks("vswitch", "link-down", port)
        try:
            await at.frames.greet()
            raise AssertionError("a frame passed a cable that is cut")
        except TimeoutError:
            await at.mends("vswitch", fault)
        await at.frames.greet()
        assert await at.caused("vswitch", port, fault) == ["link.down", "link.up", "fault.cleared"]

    told(story)


def test_a_bit_that_nobody_uses_flips_unseen_and_one_of_a_page_is_read() -> None:
    """Without error correction whoever reads the byte gets the other bit; flipping it again brings the old one back."""

    async def story(at: Calm) -> None:
        number = next(number for number in range(at.pages.COUNT) if at.frame_of(number))
        address = at.frame_of(number) << 12 | 5
        before = at.memory().ram.view(address, 1)[0]
        for expected in (before ^ 8, before):
            await at.breaks("hardware", "bit-flip", f"hosts/{HOST}", address=address, bit=3)
            assert at.memory().ram.view(address, 1)[0] == expected

    told(story)


async def node(at: Calm) -> dict[str, Any]:
    """Returns the one node."""
    stub = at.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    return body((await stub.ListObjects(orchestrator_pb2.ListObjectsRequest(kind="Node"))).objects[0])


async def refusal(call: Awaitable[Any]) -> str:
    """Returns the reason that a call is refused with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return rpc_error(error).reason
    raise AssertionError("it was not refused")
