"""Resource names from what people type: the last part of a name on the host that a layer serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina_cli.client.client import Client


async def full_name(client: Client, collection: str, name: str, layer: str = "mmu") -> str:
    """Returns `hosts/HOST/COLLECTION/NAME` for a last part, of the host of `layer`; a full name stays as it is."""
    if "/" in name:
        return name
    from lamina.common.v1 import layer_pb2_grpc

    from lamina_kit.layer.owner_session import handshake

    answer = await handshake(client.stub(layer, layer_pb2_grpc.LayerStub), "cli")
    return f"hosts/{answer.host}/{collection}/{name}"
