"""Chapter 1: the stack that everything else runs on."""

from __future__ import annotations

from lamina_cli.client.client import Client
from lamina_cli.client.home import LAYERS
from lamina_cli.demo.story import Story
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last

CORES = 4
MEMORY = 8 << 30
SWITCH = "demo"


async def stack(story: Story, client: Client) -> None:
    """Shows the six layers, the host and its switch."""
    from lamina.common.v1 import layer_pb2, layer_pb2_grpc
    from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
    from lamina.vswitch.v1 import vswitch_pb2, vswitch_pb2_grpc

    hosts = f"{len(client.hosts)} hosts" if client.hosts else "One host"
    story.chapter(f"{hosts}, six layers, model engines")
    answers = []
    for layer in LAYERS:
        stub = client.stub(layer, layer_pb2_grpc.LayerStub)
        answers.append(await stub.Handshake(layer_pb2.HandshakeRequest(caller="lamina-demo", revision="1.0")))
    story.table(
        ("LAYER", "ENGINE", "HOST", "REVISION", "CAPABILITIES"),
        ((item.layer, item.engine, item.host or "-", item.revision, ",".join(item.capabilities)) for item in answers),
    )
    story.equal("all six layers answer", [item.layer for item in answers], list(LAYERS))
    story.equal("each runs its model engine", {item.engine for item in answers}, {"model"})
    host = await client.stub("hardware", hardware_pb2_grpc.HostsStub).GetHost(hardware_pb2.GetHostRequest())
    story.check(
        f"the host has {CORES} cores and {printing.size(MEMORY)} of RAM",
        (host.core_count, host.memory_bytes) == (CORES, MEMORY),
        f"{host.core_count} cores, {printing.size(host.memory_bytes)}",
    )
    switches = client.stub("vswitch", vswitch_pb2_grpc.SwitchesStub)
    await switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id=SWITCH))
    listed = [item.name for item in (await switches.ListSwitches(vswitch_pb2.ListSwitchesRequest())).switches]
    others = len(listed) - 1  # on a stack that is up there may be somebody else's
    beside = f", beside {others} of somebody else" if others > 0 else ""
    story.check(f"it has one switch{beside}", [last(name) for name in listed].count(SWITCH) == 1, str(listed))
