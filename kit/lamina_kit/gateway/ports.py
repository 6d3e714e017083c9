"""The gateway's ports: what a layer of a stack on a virtual loop looks like from outside.

Every call passes through to the stack, except those that have nothing to do with its history and would only fill its
log: health and reflection, and the services that the caller names (the clock's, which could not be moved by a stack
that waits for it to move). They are answered beside the stack, on the real loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from lamina_kit.clock import RealClock
from lamina_kit.errors import Unimplemented
from lamina_kit.gateway.gateway import Gateway
from lamina_kit.gateway.outer_call import PortHandler
from lamina_kit.layer.service import SERVER_OPTIONS, Served, Service, listen, register_all
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.admission import Admission
from lamina_kit.rpc.channel import check_target
from lamina_kit.rpc.interceptor import Guard
from lamina_kit.security.callers import Callers
from lamina_kit.security.transport import PLAIN, Security
from lamina_kit.telemetry.trace import Recorder, SpanRing

BESIDE = (health.SERVICE_NAME, reflection.SERVICE_NAME)


async def serve_port(
    gateway: Gateway,
    service: Service,
    addresses: Sequence[str],
    layer: LayerState,
    *,
    beside: Sequence[str] = (),
    name: str = "",
    security: Security = PLAIN,
) -> Served:
    """Serves a layer of the gateway's stack on `addresses`, in the input log under `name` (default: the layer's).

    `beside` are full names of services of the layer that are answered beside the stack; their servicers must not touch
    it. Raises as `lamina_kit.layer.service.serve` does.
    """
    for address in addresses:
        check_target(address)
        security.encrypts(address)
    clock: Any = layer.clock
    clock.control = gateway.clock
    admission = Admission(layer.layer, Callers(layer.layer, security.users, security.plain_network))
    server = grpc.aio.server(interceptors=[admission], options=SERVER_OPTIONS)
    health_servicer = register_all(service, layer, _Sieve(server, (*BESIDE, *beside), layer.layer))
    server.add_generic_rpc_handlers((PortHandler(gateway, name or layer.layer),))
    return await listen(server, addresses, service.layer, health_servicer, security)


class _Sieve(grpc.aio.Server):
    """Takes the registration of a whole layer and passes on that of some services alone.

    What it passes on gets a guard of its own: the layer's would draw trace ids from the stack's chance.
    """

    def __init__(self, server: grpc.aio.Server, names: Sequence[str], layer: str) -> None:
        self._server = server
        self._names = names
        rng = Rng(int.from_bytes(os.urandom(8)))
        self._guard = Guard(Recorder(layer, RealClock(), rng, SpanRing()))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Passes on the methods of a chosen service."""
        if service_name in self._names:
            handlers = {
                method: self._guard.wrap(f"/{service_name}/{method}", handler)
                for method, handler in method_handlers.items()
            }
            self._server.add_registered_method_handlers(service_name, handlers)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Passes nothing on: generated code registers the same methods by name too."""

    def add_insecure_port(self, address: str) -> NoReturn:
        """Refuses: this is no server."""
        raise Unimplemented(f"Nobody listens on {address} here.", reason="LOCAL_WITHOUT_PORTS")

    def add_secure_port(self, address: str, server_credentials: Any) -> NoReturn:
        """Refuses: this is no server."""
        self.add_insecure_port(address)

    async def start(self) -> None:
        """Does nothing."""

    async def stop(self, grace: float | None) -> None:
        """Does nothing."""

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 (grpc.aio has it)
        """Returns at once."""
        return True
