"""What operators see and set of a running process: its logs, the metrics endpoint, the export, and their reload.

    operations = Operations(read, Shown(states, missing, wall_ns), Place("mmu", "h1"))
    await operations.start()          # before anything else is: a wrong address ends the start
    operations.attach()               # once the layers exist: their spans are exported from here on
    report = await operations.reload()          # SIGHUP
    await operations.stop()           # flushes

Everything here lives on a real loop and in threads, beside the stack: a stack in virtual time is looked at and never
called, so its history does not change.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lamina_kit.errors import LaminaError
from lamina_kit.layer.state import LayerState
from lamina_kit.operations.metrics_server import MetricsServer
from lamina_kit.operations.otlp_export import Exporter
from lamina_kit.operations.reload import Change, Reloaded
from lamina_kit.operations.settings import OperationsConfig, address, as_text, changed
from lamina_kit.security.callers import Users
from lamina_kit.telemetry import log
from lamina_kit.telemetry.metrics import NS, Family, Labels, Sample, gauge, merged

APPLIED, RESTART = "applied", "needs a restart"


@dataclass(frozen=True)
class Configured:
    """All of a process's configuration at one moment: the section of operations, and the sections of its layers."""

    operations: OperationsConfig
    layers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What is looked at: the states of the layers, who is missing (empty: all serve), and the time for log lines."""

    states: Callable[[], Sequence[LayerState]]
    missing: Callable[[], str]
    wall_ns: Callable[[], int] | None = None


@dataclass(frozen=True)
class Place:
    """Where the process is: its layer and host, empty for several; `offset` is added to the port of the metrics."""

    layer: str = ""
    host: str = ""
    offset: int = 0


class Operations:
    """The operations of one process. `read` reads its configuration anew and raises when that is wrong.

    `users` are those who may call its servers: what is configured is written into it.
    """

    def __init__(
        self,
        read: Callable[[], Configured],
        shown: Shown,
        place: Place = Place(),  # noqa: B008 (frozen)
        users: Users | None = None,
    ) -> None:
        self._read = read
        self._users = users or Users()
        self._shown = shown
        self._place = place
        self.configured = read()
        self._server: MetricsServer | None = None
        self._exporter: Exporter | None = None
        self._pump: asyncio.Task[None] | None = None
        self._attached = False
        self._turn = asyncio.Lock()
        self._reloads = {"applied": 0, "refused": 0}
        self._log = log.logger(place.layer or "operations")

    @property
    def metrics_address(self) -> str:
        """Where metrics are served, as HOST:PORT; empty when they are not."""
        return self._server.address if self._server is not None else ""

    async def start(self) -> None:
        """Applies the configuration. Raises `FailedPrecondition` `PORT_IN_USE` or `ADDRESS_UNUSABLE`."""
        config = self.configured.operations
        self._apply_logs(config)
        self._users.allowed = config.uids()
        self._server = await self._serve(config)
        self._exporter = self._export(config)
        self._keep_pumping()

    def attach(self) -> None:
        """Has the spans of the layers, which exist now, exported."""
        self._attached = True
        self.look()
        for state in self._shown.states():
            state.spans.sink = None
            if self._exporter is not None:
                self._exporter.attach(state)

    async def reload(self) -> Reloaded:
        """Reads the configuration anew and applies what can be applied to a running process.

        What is wrong changes nothing. Never raises: the report says what became of it.
        """
        async with self._turn:
            try:
                new = self._read()
                old = self.configured
                changes = _changes(old, new)
                await self._apply(old.operations, new.operations)
            except LaminaError as error:
                self._reloads["refused"] += 1
                self._log.error("config.refused", reason=error.reason, message=error.message)
                return Reloaded.refused(error)
            self.configured = new
            self._reloads["applied"] += 1
            self._log.info("config.reloaded", changes=[change.text() for change in changes])
            return Reloaded(tuple(changes))

    def look(self) -> None:
        """Has the metrics exported as they are now: for the last time before the layers stop."""
        states = self._shown.states()
        if self._exporter is not None and states:
            self._exporter.snapshot(states)

    async def stop(self) -> None:
        """Ends the endpoint, and sends what waits to be exported. Idempotent."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            self._pump = None
        server, self._server = self._server, None
        exporter, self._exporter = self._exporter, None
        if server is not None:
            await server.stop()
        if exporter is not None:
            await _end(exporter)

    def families(self) -> list[Family]:
        """Returns the metrics of all layers and of the process, as the endpoint shows them."""
        parts: list[tuple[Labels, Iterable[Family]]] = [
            ((), state.metrics.families()) for state in self._shown.states()
        ]
        own: Labels = tuple((k, v) for k, v in (("host", self._place.host), ("layer", self._place.layer)) if v)
        parts.append(((), _process()))
        reloads = tuple(Sample((("outcome", outcome),), count) for outcome, count in self._reloads.items())
        parts.append((own, [Family("lamina_reloads_total", "counter", "Reloads of the configuration.", reloads)]))
        if self._exporter is not None:
            parts.append((own, self._exporter.families()))
        return merged(parts)

    # ── applying ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _apply(self, old: OperationsConfig, new: OperationsConfig) -> None:
        """Applies what differs; what can fail comes first, and then nothing has changed."""
        names = changed(old, new)
        if any(name.startswith("metrics_") for name in names):
            await self._move_server(old, new)
        if any(name.startswith("otlp_") for name in names):
            before, self._exporter = self._exporter, self._export(new)
            if self._attached:
                self.attach()
            self._keep_pumping()
            if before is not None:
                await _end(before)
        if any(name.startswith("log_") for name in names):
            self._apply_logs(new)
        self._users.allowed = new.uids()

    async def _move_server(self, old: OperationsConfig, new: OperationsConfig) -> None:
        """Serves metrics where they are wanted now; the old endpoint goes on when the new one cannot be had."""
        if new.metrics_listen == old.metrics_listen:
            return
        before = self._server
        if before is not None and new.metrics_listen and _port(new) == _port(old):
            await before.stop()  # another address of the same port
            try:
                self._server = await self._serve(new)
            except LaminaError:
                self._server = await self._serve(old)
                raise
            return
        self._server = await self._serve(new)
        if before is not None:
            await before.stop()

    async def _serve(self, config: OperationsConfig) -> MetricsServer | None:
        if not config.metrics_listen:
            return None
        server = MetricsServer(self.families, self._shown.missing)
        await server.start(*address(config.metrics_listen, config.metrics_remote, self._place.offset))
        self._log.info("metrics.served", address=server.address)
        return server

    def _export(self, config: OperationsConfig) -> Exporter | None:
        if not config.endpoint("traces") and not config.endpoint("metrics"):
            return None
        exporter = Exporter(config)
        exporter.start()
        return exporter

    def _keep_pumping(self) -> None:
        """Has snapshots of the metrics exported from now on, when that is configured, at the interval that holds."""
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        if self._exporter is not None:
            pumping = self._pumping(self._exporter.interval_s)
            self._pump = asyncio.get_running_loop().create_task(pumping, name="otlp-metrics")

    async def _pumping(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)  # the first look is `attach`
            self.look()

    def _apply_logs(self, config: OperationsConfig) -> None:
        log.configure(
            json=config.log_format == "json",
            level=config.log_level,
            wall_ns=self._shown.wall_ns,
            layer=self._place.layer,
            host=self._place.host,
        )


def _port(config: OperationsConfig) -> str:
    return (config.metrics_listen or "").rpartition(":")[2]


async def _end(exporter: Exporter) -> None:
    """Flushes and ends an exporter; the loop goes on meanwhile."""
    await asyncio.get_running_loop().run_in_executor(None, exporter.stop)


def _changes(old: Configured, new: Configured) -> list[Change]:
    """Returns what differs, operations first, then the layers in their order."""
    found = [
        Change(f"operations.{name}", old.operations.shown(name), new.operations.shown(name), APPLIED)
        for name in changed(old.operations, new.operations)
    ]
    for layer, values in new.layers.items():
        before = old.layers[layer]
        found += [
            Change(f"{layer}.{f.name}", as_text(getattr(before, f.name)), as_text(getattr(values, f.name)), RESTART)
            for f in fields(values)
            if getattr(before, f.name) != getattr(values, f.name)
        ]
    return found


def _process() -> Iterable[Family]:
    """Yields what Prometheus' own client libraries tell of a process. Source: proc(5)."""
    times = os.times()
    cpu = int((times.user + times.system) * NS)
    text = "User and system time of the process."
    yield Family("process_cpu_seconds_total", "counter", text, (Sample((), cpu),), scale=NS)
    pages = [int(number) for number in _read_proc("statm").split()[:2]]
    page = os.sysconf("SC_PAGE_SIZE")
    yield gauge("process_virtual_memory_bytes", "Virtual memory.", pages[0] * page)
    yield gauge(
        "process_resident_memory_bytes",
        "Resident memory, shared memory such as RAM of hosts included.",
        pages[1] * page,
    )
    yield gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")) - 1)


def _read_proc(name: str) -> str:
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        return file.read()
