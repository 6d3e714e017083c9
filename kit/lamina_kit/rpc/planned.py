"""RPCs that a contract has and no engine serves yet.

They carry the option `(lamina.common.v1.planned)`, which names the systems that they wait for. A server answers them
with UNIMPLEMENTED `NOT_SERVED_YET`, those of services that the layer does not register included, so that a caller can
tell what is to come from what does not exist, and reflection shows the whole contract.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from lamina.common.v1 import options_pb2

from lamina_kit.errors import Unimplemented

REASON = "NOT_SERVED_YET"


def packages(service: Any) -> tuple[str, ...]:
    """Returns the generated packages whose contracts a service offers: those of its services, and its `adapters`."""
    own = (name.rpartition(".")[0] for name in service.service_names)
    return tuple(dict.fromkeys((*own, *getattr(service, "adapters", ()))))


def services(packages: Iterable[str]) -> Iterator[ServiceDescriptor]:
    """Yields the services of generated packages (`lamina.mmu.v1`), in order of files and, in one, of the contract."""
    for package in packages:
        for module in _modules(package):
            contract: FileDescriptor = module.DESCRIPTOR
            yield from contract.services_by_name.values()


def waits_for(method: MethodDescriptor) -> str:
    """Returns the systems that an RPC waits for (`S-14 S-15`); empty for one that is served."""
    return str(method.GetOptions().Extensions[options_pb2.planned])


def register(server: grpc.aio.Server, offered: Sequence[ServiceDescriptor]) -> None:
    """Has the server answer the planned RPCs of `offered`. After the layer's own servicers: the last to come stands."""
    for service in offered:
        handlers = {method.name: _handler(method) for method in service.methods if waits_for(method)}
        if handlers:
            server.add_registered_method_handlers(service.full_name, handlers)


def _modules(package: str) -> Iterator[ModuleType]:
    """Yields the generated modules of a package in alphabetical order; none where there is no generated code."""
    try:
        parent = importlib.import_module(package)
    except ModuleNotFoundError:
        return
    for name in sorted(found.name for found in pkgutil.iter_modules(parent.__path__)):
        if name.endswith("_pb2"):
            yield importlib.import_module(f"{package}.{name}")


def _handler(method: MethodDescriptor) -> Any:
    """Returns the handler that refuses a planned RPC, of the RPC's own kind."""
    systems = waits_for(method)
    name = f"{method.containing_service.full_name}/{method.name}"

    async def refuse(argument: Any, context: Any) -> NoReturn:
        raise Unimplemented(
            f"{name} is not served yet: it waits for {systems}.",
            reason=REASON,
            next_step="`docs/systems.md` says what stands; the contract will not change when it comes.",
            systems=systems,
        )

    kind = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.client_streaming, method.server_streaming]
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    return kind(refuse, request_deserializer=request.FromString, response_serializer=response.SerializeToString)
