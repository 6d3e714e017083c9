"""The service over time and over wires: recovery, takeover, sockets, explanations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.hypervisor.v1 import hypervisor_pb2 as pb

from lamina_hypervisor.config import HypervisorConfig
from lamina_hypervisor.io.store import Store
from lamina_kit.layer.service import connect, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_definitions_outlive_the_service(lab: Any) -> None:
    """A VM that had power when the service was lost is stopped, says so, and starts again from its image."""
    name, _ = await lab.boot(label="survivor")
    killed = lab.services["hypervisor"]
    await lab.layer("hypervisor", HypervisorConfig())  # a newer start of the same owner takes the sessions over
    vm = await lab.get(name)
    assert (vm.state, vm.stop_reason) == (pb.VirtualMachine.STATE_STOPPED, "HYPERVISOR_RESTARTED")
    assert vm.label == "survivor"
    await lab.start_vm(name)
    assert (await lab.until(name, b"> ")).endswith(b"> ")
    await lab.stop_vm(name)
    await killed.stop()
    assert (await lab.get(name)).stop_reason == "POWERED_OFF"


async def test_a_stopped_service_powers_its_vms_off(lab: Any) -> None:
    """A clean stop gives everything back and records why."""
    name, _ = await lab.boot()
    await lab.services["hypervisor"].stop()
    store = Store(lab.folder / "hypervisor" / "vms.sqlite")
    recorded = {vm.name: vm for vm in store.load()}
    store.close()
    assert recorded[name].verdict.reason == "HYPERVISOR_STOPPED"
    await lab.layer("hypervisor", HypervisorConfig())
    assert (await lab.get(name)).stop_reason == "HYPERVISOR_STOPPED"


async def test_a_guest_boots_over_sockets(lab: Any, tmp_path: Path) -> None:
    """The same contract on a UNIX socket and a TCP port: upload, create, boot, read, stop."""
    served = await serve(
        lab.services["hypervisor"], ["127.0.0.1:0", f"unix:{tmp_path}/hv.sock"], lab.states["hypervisor"]
    )
    inside = lab.channels["hypervisor"]
    try:
        for address in served.addresses:
            lab.channels["hypervisor"] = connect(address)
            pieces = [pb.UploadImageRequest(data=lab.kernel[at : at + 4096]) for at in range(0, len(lab.kernel), 4096)]
            image = await lab.vms.UploadImage(iter(pieces))
            assert image.size_bytes == len(lab.kernel)
            name = await lab.create(kernel=b"", kernel_digest=image.digest)
            await lab.start_vm(name)
            assert (await lab.until(name, b"> ")).endswith(b"> ")
            await lab.stop_vm(name)
            await lab.channels["hypervisor"].close()
    finally:
        lab.channels["hypervisor"] = inside
        await served.stop()


async def test_the_layer_explains_why_a_vm_stopped(lab: Any) -> None:
    """The decision that took the power away is in the log with its rule, and the events are in order."""
    name, _ = await lab.boot()
    await lab.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=b"crash\n"))
    await lab.ended(name)
    stub: Any = layer_pb2_grpc.LayerStub(lab.channels["hypervisor"])
    explained = await stub.Explain(layer_pb2.ExplainRequest(object=name))
    assert explained.decisions[0].rule == "triple fault"
    events = await stub.ListEvents(layer_pb2.ListEventsRequest(object=name))
    assert [event.event for event in events.events] == [
        "vm.created",
        "vm.starting",
        "vm.running",
        "vm.stopping",
        "vm.crashed",
    ]


async def test_a_layer_says_who_it_is(lab: Any) -> None:
    """The handshake names engine, host and the host's boot, which is that of the memory on the hardware."""
    stub: Any = layer_pb2_grpc.LayerStub(lab.channels["hypervisor"])
    answer = await stub.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.0"))
    below: Any = layer_pb2_grpc.LayerStub(lab.channels["mmu"])
    memory = await below.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.0"))
    assert (answer.layer, answer.engine, answer.host) == ("hypervisor", "model", "h1")
    assert answer.boot_id == memory.boot_id != ""
    assert "ept" in answer.capabilities


async def test_an_abandoned_reader_costs_nothing(lab: Any, eventually: Any) -> None:
    """A follower that goes away is forgotten; the guest prints on."""
    name, output = await lab.boot()
    call = lab.vms.ReadSerial(pb.ReadSerialRequest(name=name, follow=True))
    await call.read()
    call.cancel()
    assert "on" in await lab.command(name, "echo on")
    machine = lab.services["hypervisor"]._hypervisor.machine(name)
    await eventually(lambda: machine.followers == 0, "the follower is forgotten")
    assert len(await lab.serial(name)) > len(output)
    await lab.stop_vm(name)
