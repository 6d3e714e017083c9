"""A stack of six processes: one a layer, joined by UNIX sockets and the memory bus, and kept running.

The processes know each other's sockets from their flags, so all of them start at once: each waits for those below it.
One that dies is started again after a pause. They stop top down.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from lamina_cli.client import home
from lamina_cli.client.client import Client
from lamina_cli.layers import CALLS, layers_of
from lamina_cli.stack.child import Child, Command
from lamina_cli.stack.embedded import Progress, Settings
from lamina_cli.stack.reachability import without
from lamina_kit import config as configuration
from lamina_kit.engines import check_set, load_engine
from lamina_kit.errors import FailedPrecondition, InvalidArgument
from lamina_kit.process.options import GRACE_S, PREFIX
from lamina_kit.rpc.channel import MAX_UNIX_PATH, connect
from lamina_kit.security.transport import PLAIN

STOP_S = 20.0
"""How long one process may take to stop in order."""
LOOK_S = 0.05
ANSWER_S = 2.0
JOIN_S = 10.0
"""How long layers that serve may take to reach those below them."""
_SHELL_VARIABLES = tuple(
    PREFIX + name
    for name in (
        *("HOST", "STATE_DIR", "BUS", "LISTEN", "CONFIG", "ENGINE", "SEED", "PATIENCE", "PARENT", "FAULT_PLAN"),
        *("GRACE", "TLS_DIR", "TLS_CA", "TLS_CERT", "TLS_KEY", "PLAIN_NETWORK"),
    )
)
"""Variables of the processes' shell that must not reach them from the environment of the command."""


@dataclass(frozen=True)
class Report:
    """What the supervisor knows of one process."""

    state: str
    pid: int
    start_ticks: int
    restarts: int
    socket: str
    reason: str = ""
    message: str = ""


class SplitStack:
    """Six supervised processes. `addresses` adds an address a layer to the UNIX socket that each has."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        addresses: Mapping[str, str] | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self._folder = folder
        self._addresses = dict(addresses or {})
        self._on_change = on_change
        self.security = PLAIN
        """Certificates for the addresses that lie beyond the host."""
        self.grace_s = GRACE_S
        """How long calls may go on once a process stops."""
        self.operations: Sequence[str] = ()
        """Flags about logs and metrics that every process gets."""
        self.fault_plan: Path | None = None
        """File of a plan of faults of the calls between the layers."""
        self._sockets = Path()
        self._bus = Path()
        self._children: dict[str, Child] = {}
        self._layers = layers_of(settings.engines)

    @property
    def targets(self) -> dict[str, str]:
        """The address of each layer for callers outside: the one that was asked for, else its socket."""
        asked = {layer: self.security.from_here(address) for layer, address in self._addresses.items()}
        return {layer: asked.get(layer, self._socket(layer)) for layer in self._layers}

    @property
    def bus(self) -> Path:
        """The memory bus of the host."""
        return self._bus

    def reports(self) -> dict[str, Report]:
        """Returns what is known of each process."""
        return {layer: self._report(layer, child) for layer, child in self._children.items()}

    def client(self) -> Client:
        """Returns a client that calls over the UNIX sockets."""
        return Client({layer: self._socket(layer) for layer in self._layers})

    async def start(self, progress: Progress = lambda layer: None) -> None:
        """Starts the processes and returns when all layers serve, each with all that it calls.

        What was started is stopped again when one fails.

        Raises:
            InvalidArgument: the engines do not go together, or the configuration is wrong; the key is named.
            FailedPrecondition: an engine cannot run here, a port or a state directory is in use.
        """
        self._check()
        self._make_folders()
        try:
            for layer in self._layers:
                child = Child(self._command(layer), partial(self._serves, layer), self._on_change)
                child.give_up_early(True)
                self._children[layer] = child
                child.start()
            for layer, child in self._children.items():
                progress(layer)
                await self._settled(child)
            await self._joined()
            for child in self._children.values():
                child.give_up_early(False)
        except BaseException:
            await self.stop()
            raise

    def hasten(self) -> None:
        """Ends the grace of calls while the processes stop."""
        for child in self._children.values():
            child.tell(signal.SIGTERM)

    def reload(self) -> None:
        """Has every process that serves read its configuration anew; one that starts does so anyway."""
        for child in self._children.values():
            if child.state == "serving":
                child.tell(signal.SIGHUP)

    async def stop(self) -> None:
        """Stops the processes top down, and removes sockets and the memory bus. Idempotent."""
        for layer in reversed(list(self._children)):
            await self._children[layer].stop(STOP_S + self.grace_s)
        self._children.clear()
        if self._sockets != Path():
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._bus.unlink(missing_ok=True)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        settings = self.settings
        if settings.hosts != 1 or settings.clock != "real":
            raise InvalidArgument(
                "A split stack has one host and real time.",
                reason="TOPOLOGY_UNSUPPORTED",
                next_step="Leave --split away for several hosts or another clock: embedded stacks have both.",
            )
        check_set(settings.engines)
        if settings.config_file is not None:
            configuration.check_sections(settings.config_file, home.LAYERS)
        for layer in self._layers:
            load_engine(layer, settings.engines[layer])

    def _make_folders(self) -> None:
        state = self._folder / "state"
        (self._folder / "logs").mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        buses = home.bus_dir(state)
        home.sweep_buses(buses)
        self._bus = buses / home.bus_name(self.settings.host)
        own = self._folder.absolute() / "sockets"
        longest = max(len(os.fsencode(own / f"{layer}.sock")) for layer in self._layers)
        if longest > MAX_UNIX_PATH:
            own = Path(tempfile.mkdtemp(prefix="lamina-"))
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(mode=0o700)
        self._sockets = own

    def _socket(self, layer: str) -> str:
        return f"unix:{self._sockets / layer}.sock"

    def _command(self, layer: str) -> Command:
        settings = self.settings
        words = [sys.executable, "-m", package(layer), "--host", settings.host, "--parent", str(os.getpid())]
        words += ["--state-dir", str(self._folder.absolute() / "state" / layer), "--bus", str(self._bus)]
        words += ["--engine", settings.engines[layer], "--listen", self._socket(layer)]
        if layer in self._addresses:
            words += ["--listen", self._addresses[layer]]
        for below in CALLS[layer]:
            words += ["--upstream", f"{below}={self._socket(below)}"]
        if settings.config_file is not None:
            words += ["--config", str(settings.config_file.absolute())]
        if settings.seed is not None:
            words += ["--seed", str(settings.seed)]
        if self.fault_plan is not None:
            words += ["--fault-plan", str(self.fault_plan.absolute())]
        if self.security.tls is not None:
            words += ["--tls-dir", str(self.security.tls.ca.parent)]
        if self.security.plain_network:
            words += ["--plain-network"]
        words += ["--grace", str(self.grace_s), *self.operations, "--metrics-offset", str(home.LAYERS.index(layer))]
        own = {name: text for name, text in os.environ.items() if name not in _SHELL_VARIABLES}
        return Command(layer, words, {**own, **settings.overrides}, self._folder / "logs" / f"{layer}.log")

    async def _settled(self, child: Child) -> None:
        """Waits until one layer serves; the failure of any other ends the wait."""
        waits = {layer: asyncio.ensure_future(one.settled()) for layer, one in self._children.items()}
        wanted = waits[child.command.layer]
        try:
            while not wanted.done():
                pending = [wait for wait in waits.values() if not wait.done()]
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits.values():
                    if wait.done():
                        await wait
        finally:
            for wait in waits.values():
                wait.cancel()
            await asyncio.gather(*waits.values(), return_exceptions=True)

    async def _joined(self) -> None:
        """Waits until every layer reaches those that it calls: some serve before, and would be degraded for a moment.

        One that does not get there in time is left to `lamina status`, which says whom it lacks.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(JOIN_S):
                await asyncio.gather(*(self._reaches_all(layer) for layer in self._layers))

    async def _reaches_all(self, layer: str) -> None:
        async with self._checker(layer) as checker:
            while True:
                if not await self._lacks_one(checker, layer):
                    return
                await asyncio.sleep(LOOK_S)

    @staticmethod
    async def _lacks_one(checker: Any, layer: str) -> bool:
        """Says whether a layer does not answer, or lacks one that it calls."""
        import grpc

        try:
            return bool(await without(checker, layer, ANSWER_S))
        except grpc.aio.AioRpcError:  # it starts again; the supervisor sees to that
            return True

    @asynccontextmanager
    async def _checker(self, layer: str) -> AsyncIterator[Any]:
        """Has a stub of a layer's health service for a `with` block."""
        from grpc_health.v1 import health_pb2_grpc

        channel = connect(self._socket(layer))
        try:
            yield health_pb2_grpc.HealthStub(channel)
        finally:
            await channel.close()

    async def _serves(self, layer: str) -> None:
        """Returns once a layer's health says that it serves."""
        import grpc
        from grpc_health.v1 import health_pb2

        async with self._checker(layer) as checker:
            while True:
                with suppress(grpc.aio.AioRpcError):  # it does not serve yet; its end is seen elsewhere
                    found = await checker.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
                    if found.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                await asyncio.sleep(LOOK_S)

    def _report(self, layer: str, child: Child) -> Report:
        known = Report(child.state, child.pid, child.start_ticks, child.restarts, self._socket(layer))
        problem = child.problem
        return known if problem is None else replace(known, reason=problem.reason, message=problem.message)


def package(layer: str) -> str:
    """Returns the package that serves a layer, which runs as `python -m PACKAGE`.

    Raises:
        FailedPrecondition: `LAYER_NOT_INSTALLED`, no distribution provides the layer.
    """
    for point in metadata.entry_points(group="lamina.services"):
        if point.name == layer:
            return point.module.rpartition(".")[0]
    raise FailedPrecondition(
        f"no installed distribution provides the {layer} layer",
        reason="LAYER_NOT_INSTALLED",
        next_step="install Lamina again: `./run` does it when the checkout changed",
    )


@asynccontextmanager
async def private_split(
    settings: Settings | None = None, progress: Progress = lambda layer: None
) -> AsyncIterator[SplitStack]:
    """Runs a split stack for the length of a `with` block, without ports, in a scratch folder that is removed."""
    folder = Path(tempfile.mkdtemp(prefix="lamina-"))
    stack = SplitStack(settings or Settings(), folder)
    try:
        await stack.start(progress)
        yield stack
    finally:
        await stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
