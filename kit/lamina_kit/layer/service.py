"""What a layer is to the rest, and how it is served: in process, and on sockets.

    service = MmuService(environment)               # a layer's server.py
    await service.start()
    channel = local(service, environment.layer)     # for the layers above, in the same process
    served = await serve(service, ["127.0.0.1:50052", "unix:/run/mmu.sock"], environment.layer)
    …
    await served.stop(); await service.stop()

Both register, beside the layer's own services, the common `Layer` and `Faults` services, gRPC health and reflection,
and put `interceptor.Guard` around every handler. Starting and stopping the service itself is the composer's.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from lamina.common.v1 import faults_pb2_grpc, layer_pb2_grpc

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError
from lamina_kit.faults.service import SERVICE_NAME as FAULTS_NAME
from lamina_kit.faults.service import FaultsServicer
from lamina_kit.layer.state import SERVICE_NAME, LayerServicer, LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc import planned
from lamina_kit.rpc.admission import Admission
from lamina_kit.rpc.channel import OPTIONS, Channel, check_target, connect
from lamina_kit.rpc.inproc.local import Latency, LocalChannel, LocalServer
from lamina_kit.rpc.interceptor import Guard
from lamina_kit.security.callers import Callers
from lamina_kit.security.credentials import of_server
from lamina_kit.security.private_folder import UMASK
from lamina_kit.security.transport import PLAIN, Security, bare

__all__ = ["Channel", "Environment", "Served", "Service", "connect", "local", "serve"]

SERVER_OPTIONS = (*OPTIONS, ("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 5000))
LAST_WORDS_S = 0.1
"""How long answers that are on their way have before the sockets close."""
BELOW = "below/"
"""What the health name of a layer below begins with."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Service(Protocol):
    """What a layer's `server.py` builds from an `Environment`.

    One that serves contracts beside its own names their generated packages in `adapters`: (`lamina.cri.v1`,).
    """

    layer: str

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the layer's own servicers: `add_XServicer_to_server(…, server)` for each. Not `Layer`, not health."""

    @property
    def service_names(self) -> tuple[str, ...]:
        """Full names of the layer's own services, for health and reflection."""

    async def start(self) -> None:
        """Opens what the service needs: sessions below, files, recovery. Called once, before the first call."""

    async def stop(self) -> None:
        """Drains and closes. Idempotent."""


@dataclass
class Environment:
    """All that a service has from outside; the shell builds it.

    `channels` are keyed by layer (`hardware`, `mmu` …) and hold the layers below only; `bus_path` is the host's memory
    bus where the service runs on that host; `config` is the layer's own typed configuration.
    """

    host: str
    clock: Clock
    rng: Rng
    state_dir: Path
    layer: LayerState
    channels: Mapping[str, Channel] = field(default_factory=dict)
    bus_path: Path | None = None
    bus: MemoryBus | None = None
    config: Any = None
    security: Security = PLAIN
    """For channels that the service opens itself, beyond its host."""


def local(service: Service, layer: LayerState, *, latency: Latency | None = None) -> LocalChannel:
    """Returns an in-process channel to a service; in virtual time its calls take a `latency`."""
    server = LocalServer(Guard(layer.recorder, calls=layer.calls).wrap)
    register_all(service, layer, server)
    return LocalChannel(server, latency=latency)


@dataclass
class Served:
    """A service on sockets. `addresses` are what clients connect to, in the order asked for; `ports` those of TCP."""

    server: grpc.aio.Server
    health: health.aio.HealthServicer
    addresses: tuple[str, ...]
    ports: tuple[int, ...]
    admission: Admission | None = None

    async def set_serving(self, serving: bool) -> None:
        """Tells health watchers whether the layer serves, all of its services at once."""
        await set_serving(self.health, serving)

    async def set_below(self, layer: str, serving: bool) -> None:
        """Tells health watchers, under the name `below/LAYER`, whether a layer that this one calls serves.

        A layer that serves while one below does not is degraded: what needs the missing one is refused.
        """
        await self.health.set(BELOW + layer, _SERVING if serving else _NOT_SERVING)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Tells health watchers, refuses new calls, gives those with one response `grace_s` seconds, ends the rest.

        Callers whose calls end so see UNAVAILABLE `SHUTTING_DOWN`.
        """
        await self.health.enter_graceful_shutdown()
        if self.admission is not None:
            await self.admission.shut(grace_s)
        await self.server.stop(LAST_WORDS_S if self.admission is not None else grace_s)

    def hasten(self) -> None:
        """Ends the grace of a `stop` that waits."""
        if self.admission is not None:
            self.admission.hasten()

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        await self.server.wait_for_termination()


async def set_serving(servicer: health.aio.HealthServicer, serving: bool) -> None:
    """Has a health service say for all names of this layer that it knows whether they serve."""
    names: dict[str, Any] = vars(servicer)["_server_status"]
    for name in [name for name in names if not name.startswith(BELOW)]:
        await servicer.set(name, _SERVING if serving else _NOT_SERVING)


async def serve(
    service: Service,
    addresses: Sequence[str],
    layer: LayerState,
    *,
    serving: bool = True,
    security: Security = PLAIN,
) -> Served:
    """Serves a service on `addresses`: `HOST:PORT` (port 0: any free one), `tls:HOST:PORT` and `unix:/path`.

    Without `serving` health says NOT_SERVING until `Served.set_serving`.
    Raises `InvalidArgument` for a malformed address and `FailedPrecondition` `PORT_IN_USE`, `SOCKET_IN_USE` or
    `ADDRESS_UNUSABLE` for one that cannot be listened on, `TLS_REQUIRED` for one beyond the host without a certificate;
    then it listens on none. A certificate that cannot be used raises as `certificates.read`.
    """
    for address in addresses:
        check_target(address)
        security.encrypts(address)
    admission = Admission(service.layer, Callers(service.layer, security.users, security.plain_network))
    server = grpc.aio.server(
        interceptors=[admission, Guard(layer.recorder, calls=layer.calls)],
        options=SERVER_OPTIONS,
    )
    health_servicer = register_all(service, layer, server)
    if not serving:
        known: dict[str, Any] = vars(health_servicer)["_server_status"]
        known.update(dict.fromkeys(known, _NOT_SERVING))
    served = await listen(server, addresses, service.layer, health_servicer, security)
    served.admission = admission
    return served


async def listen(
    server: grpc.aio.Server,
    addresses: Sequence[str],
    layer: str,
    health_servicer: health.aio.HealthServicer,
    security: Security = PLAIN,
) -> Served:
    """Starts a server, on which everything is registered, on addresses. Raises as `serve` does."""
    try:
        bound = tuple(_bind(server, address, layer, security) for address in addresses)
    except LaminaError:
        await server.start()  # gRPC gives back the addresses before the one that failed only if it was started
        await server.stop(None)
        raise
    await server.start()
    ports = tuple(int(address.rpartition(":")[2]) for address in bound if not address.startswith("unix:"))
    return Served(server, health_servicer, bound, ports)


def register_all(service: Service, layer: LayerState, server: grpc.aio.Server) -> health.aio.HealthServicer:
    """Adds the layer's services, those of its contract that wait for their engine, and the common ones."""
    offered = tuple(planned.services(planned.packages(service)))
    service.register(server)
    planned.register(server, offered)
    if SERVICE_NAME not in service.service_names:  # a switchboard has the common services of its present start
        layer_pb2_grpc.add_LayerServicer_to_server(LayerServicer(layer), server)
        faults_pb2_grpc.add_FaultsServicer_to_server(FaultsServicer(layer.faults), server)
    names = tuple(dict.fromkeys((*service.service_names, SERVICE_NAME, FAULTS_NAME)))
    servicer = health.aio.HealthServicer()
    serving: dict[str, Any] = vars(servicer)["_server_status"]
    serving.update(dict.fromkeys(names, _SERVING))  # its own `set` is a coroutine, for watchers that none are yet
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    shown = (*dict.fromkeys((*names, *(s.full_name for s in offered))), health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(shown, server)
    return servicer


def _bind(server: grpc.aio.Server, address: str, layer: str, security: Security) -> str:
    """Makes the server listen on one address; returns the address with its real port."""
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix://").removeprefix("unix:"))
        _check_socket_free(path, layer)
        address = f"unix:{path}"
    credentials = of_server(security.tls) if security.encrypts(address) and security.tls else None
    prefix, address = address[: -len(bare(address))], bare(address)
    before = os.umask(UMASK)  # between its making and a chmod, others could open a socket
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise _unusable(address, layer) from error
    finally:
        os.umask(before)
    if address.startswith("unix:"):
        os.chmod(path, 0o600)
        return address
    return f"{prefix}{address.rpartition(':')[0]}:{port}"


def _check_socket_free(path: Path, layer: str) -> None:
    """Raises when somebody listens on the UNIX socket at `path`; gRPC would silently take it over."""
    if not path.parent.is_dir():
        raise FailedPrecondition(
            f"The folder of the UNIX socket {path} does not exist.",
            reason="ADDRESS_UNUSABLE",
            next_step="Make it, or choose another state directory.",
        )
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return  # a socket that a dead process left behind; gRPC replaces it
    raise FailedPrecondition(
        f"The {layer} service cannot listen on {path}: somebody does already.",
        reason="SOCKET_IN_USE",
        next_step="Stop the other one with `lamina down`, or serve elsewhere.",
    )


def _unusable(address: str, layer: str) -> FailedPrecondition | InvalidArgument:
    """Returns why nobody can listen on `address`, found by trying it with a plain socket."""
    if address.startswith("unix:"):
        return FailedPrecondition(
            f"The {layer} service cannot listen on {address}: something that is no socket is there, or no right to it.",
            reason="ADDRESS_UNUSABLE",
            next_step="Remove it, or choose another path.",
        )
    host, _, port = address.rpartition(":")
    try:
        for family, kind, number, _, where in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM):
            with socket.socket(family, kind, number) as probe:
                probe.bind(where)
        detail = "the address cannot be listened on"
    except socket.gaierror:
        return InvalidArgument(f"{address} names no host that is known here.", reason="ADDRESS_INVALID")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return FailedPrecondition(
                f"The {layer} service cannot listen on {address}: port {port} is in use.",
                reason="PORT_IN_USE",
                next_step="Stop what uses it, or choose other ports: `lamina up --port PORT`.",
                port=port,
            )
        detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return FailedPrecondition(
        f"The {layer} service cannot listen on {address}: {detail}.",
        reason="ADDRESS_UNUSABLE",
        next_step="Choose another address.",
    )
