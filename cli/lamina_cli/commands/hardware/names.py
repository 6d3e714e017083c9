"""Names of what belongs to a host, as people write them."""

from __future__ import annotations

from lamina_cli.client.client import Client


async def on_host(client: Client, collection: str, name: str) -> str:
    """Returns the full name of what is called `name` in a collection of the host; a full name stays as it is."""
    from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc

    if "/" in name:
        return name
    host = await client.stub("hardware", hardware_pb2_grpc.HostsStub).GetHost(hardware_pb2.GetHostRequest())
    return f"{host.name}/{collection}/{name}"
