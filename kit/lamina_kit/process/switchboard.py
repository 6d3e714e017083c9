"""One service on a server, whatever happens to the object behind it: not started yet, at work, or being built anew.

    board = Switchboard(refusal)                # makes the error of every call until the first `open`
    board.connect(service, layer_state)         # its methods are known
    board.register(server)                      # once, on a socket server or a LocalServer
    board.open()                                # calls reach the service
    await board.drain(refusal, 1.0)             # new calls are refused so, short ones may end
    await board.close(refusal)                  # calls in flight end so
    board.connect(another, layer_state); board.open()

A host's loss of power rebuilds the service object in place: callers see UNAVAILABLE meanwhile, as they see a process
that is gone, and their sessions break.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import grpc
from lamina.common.v1 import faults_pb2_grpc, layer_pb2_grpc

from lamina_kit.errors import LaminaError
from lamina_kit.faults.service import SERVICE_NAME as FAULTS_NAME
from lamina_kit.faults.service import FaultsServicer
from lamina_kit.layer.state import SERVICE_NAME as LAYER_NAME
from lamina_kit.layer.state import LayerServicer, LayerState
from lamina_kit.process.upstreams import TRANSPORT
from lamina_kit.rpc.inflight import InFlight, Refusal
from lamina_kit.rpc.interceptor import Behaviour, as_coroutine, as_writer
from lamina_kit.rpc.status import rpc_error

Explain = Callable[[LaminaError], LaminaError]


class _Collected:
    """What a service registers, as a table from `/pkg.Service/Method` to its handler."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        for method, handler in method_handlers.items():
            self.handlers.setdefault(f"/{service_name}/{method}", handler)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Generated code registers the same handlers a second time in this way."""


class Switchboard:
    """Stands for a service at a server. `explain` makes an error of the transport below say who is missing."""

    def __init__(self, refusal: Refusal, explain: Explain = lambda error: error) -> None:
        self._calls = InFlight(refusal)
        self._explain = explain
        self._service: Any = None
        self._table: dict[str, Any] = {}
        self.layer = ""
        self.service_names: tuple[str, ...] = ()
        self.adapters: tuple[str, ...] = ()

    def connect(self, service: Any, state: LayerState) -> None:
        """Puts a service behind the board; its methods are those of the one before."""
        collected: Any = _Collected()
        service.register(collected)
        layer_pb2_grpc.add_LayerServicer_to_server(LayerServicer(state), collected)
        faults_pb2_grpc.add_FaultsServicer_to_server(FaultsServicer(state.faults), collected)
        self._service = service
        self._table = dict(collected.handlers)
        self.layer, self.service_names = service.layer, (*service.service_names, LAYER_NAME, FAULTS_NAME)
        self.adapters = tuple(getattr(service, "adapters", ()))

    def register(self, server: grpc.aio.Server) -> None:
        """Adds every method of the connected service to a server, the common `Layer` and `Faults` among them."""
        methods: dict[str, dict[str, Any]] = {}
        for path, handler in self._table.items():
            _, service, method = path.split("/")
            methods.setdefault(service, {})[method] = self._switch(path, handler)
        for service, handlers in methods.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            server.add_registered_method_handlers(service, handlers)

    async def start(self) -> None:
        """Nothing: who composes starts the service and then opens the board."""

    async def stop(self) -> None:
        """Nothing: who composes closes the board and stops the service."""

    @property
    def is_open(self) -> bool:
        """Whether calls reach the service."""
        return self._calls.refusal is None

    def open(self) -> None:
        """Lets calls reach the service."""
        self._calls.refusal = None

    def refuse(self, refusal: Refusal) -> None:
        """Changes what callers are told while the board is closed."""
        if self._calls.refusal is not None:
            self._calls.refusal = refusal

    async def drain(self, refusal: Refusal, limit_s: float) -> None:
        """Refuses new calls, and lets those with one response end by themselves for up to `limit_s` seconds."""
        await self._calls.drain(refusal, limit_s)

    def hasten(self) -> None:
        """Ends the wait of `drain`."""
        self._calls.hasten()

    async def close(self, refusal: Refusal) -> None:
        """Ends the calls in flight with `refusal`, and refuses those that come so. Returns when they have ended."""
        await self._calls.close(refusal)

    # ── one call ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _switch(self, path: str, handler: Any) -> Any:
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            kind = "stream_stream" if handler.request_streaming else "unary_stream"
        else:
            kind = "stream_unary" if handler.request_streaming else "unary_unary"
        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        adapt = as_writer if handler.response_streaming else as_coroutine

        async def answer(argument: Any, context: Any) -> Any:
            with self._calls.held(handler.response_streaming):
                behaviour: Behaviour = getattr(self._table[path], kind)
                if not inspect.iscoroutinefunction(behaviour):
                    behaviour = adapt(behaviour)
                try:
                    return await behaviour(argument, context)
                except grpc.aio.AioRpcError as error:
                    raise self._explained(rpc_error(error)) from error
                except LaminaError as error:
                    raise self._explained(error) from error

        return make(answer, *codecs)

    def _explained(self, error: LaminaError) -> LaminaError:
        return self._explain(error) if error.reason == TRANSPORT else error
