"""The shell around the engine: opens files, sessions and RAM below it, drives its steps, feeds streams."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any, TypeVar

from lamina_container_runtime.config import ContainerRuntimeConfig
from lamina_container_runtime.domain.containers.container import ContainerEvent, EventType
from lamina_container_runtime.domain.containers.log_line import LogLine
from lamina_container_runtime.domain.images.image import ImageRecord
from lamina_container_runtime.domain.names import Names
from lamina_container_runtime.domain.wait import Waiter, WaitQueue
from lamina_container_runtime.engines.interface import Engine, Ports
from lamina_container_runtime.engines.model.effects import Wait
from lamina_container_runtime.io.images.store import ImageStore
from lamina_container_runtime.io.machine.clients import Clients
from lamina_container_runtime.io.machine.performer import Performer
from lamina_container_runtime.io.machine.sessions import Host, HostMemory
from lamina_container_runtime.io.records.database import Database
from lamina_container_runtime.io.records.logs import LogStore
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.effects import Step
from lamina_kit.engines import load_engine
from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_kit.layer.service import Environment
from lamina_kit.telemetry import trace

T = TypeVar("T")
WATCH_LAG = 4096
"""Most events that a watcher may be behind."""


class Runtime:
    """What the servicers work with. The parts exist between `start` and `stop`."""

    engine: Engine
    images: ImageStore
    logs: LogStore
    performer: Performer

    def __init__(self, environment: Environment, config: ContainerRuntimeConfig) -> None:
        self._environment = environment
        self._config = config
        self._engine_class: Any = load_engine("container-runtime", environment.layer.engine)
        environment.layer.capabilities = self._engine_class.capabilities
        self.names = Names(environment.host)
        self.clock = environment.clock
        self._importing = asyncio.Lock()
        self._host: Host | None = None
        self._database: Database | None = None
        self._clients: Clients | None = None
        self._running = False

    @property
    def is_running(self) -> bool:
        """Whether the runtime is between its start and its stop."""
        return self._running

    async def start(self) -> None:
        """Opens the state, shakes hands below, makes the engine and reconciles what the last start left."""
        environment = self._environment
        folder = environment.state_dir
        folder.mkdir(parents=True, exist_ok=True)
        database = self._database = Database(folder / "runtime.db")
        epoch = database.next_epoch()
        host = self._host = Host(environment, database.put_epoch)
        bus = await host.open(epoch)
        clients = self._clients = Clients(
            host.hardware, host.mmu, host.sessions, bus, environment.layer.events.record,
            self.clock, environment.rng.child(f"requests/{epoch}"),
        )  # fmt: skip
        memory = HostMemory(bus)
        self.performer = Performer(clients, self.clock, environment.layer.recorder)
        self.images = ImageStore(folder / "images", database)
        self.logs = LogStore(folder / "logs", self.clock.wall_ns, self._log_full)
        self.engine = self._engine_class(self._ports(database, memory, epoch))
        described = await clients.host()
        self.engine.describe_host(described.memory_bytes, described.core_count)
        self._running = True
        await self.performer.drive(self.engine.recover())
        host.holds = self.engine.holds
        host.on_reboot = lambda bus, lost: self._rebooted(bus, lost, clients, memory)

    async def stop(self) -> None:
        """Ends all containers' tasks and closes everything. Idempotent."""
        if self._running:
            self._running = False
            await self.performer.stop()
            if self._clients is not None:
                await self._clients.close()
            self.logs.close_all()
            self.images.close()
        if self._host is not None:
            await self._host.close()
            self._host = None
        if self._database is not None:
            self._database.close()
            self._database = None

    async def drive(self, step: Step[T]) -> T:
        """Runs a step of the engine to its end, also when the caller goes away."""
        return await self.performer.drive(step)

    async def drive_cancellable(self, step: Step[T]) -> T:
        """Runs a step that only waits; it ends with its caller."""
        return await self.performer.drive_cancellable(step)

    async def import_image(self, file: IO[bytes], reference: str) -> list[ImageRecord]:
        """Imports an archive. The work is done on a thread when time is real, so that containers go on meanwhile."""
        now = self.clock.wall_ns()
        async with self._importing:
            if getattr(self.clock, "mode", "real") == "real":
                found = await asyncio.to_thread(self.images.unpack_archive, file, reference)
            else:
                found = self.images.unpack_archive(file, reference)
            return self.images.record(found, reference, now)

    def spool(self) -> IO[bytes]:
        """Returns a temporary file below the state directory for an archive that arrives."""
        return tempfile.TemporaryFile(dir=self._environment.state_dir)

    async def delete_image(self, reference: str) -> tuple[tuple[str, ...], bool, int]:
        """Deletes an image or a reference; `FailedPrecondition` `IMAGE_IN_USE` while a container was made from it.

        Waits for an import that is under way: its content belongs to no image yet.
        """
        async with self._importing:
            return self._delete_image(reference)

    def _delete_image(self, reference: str) -> tuple[tuple[str, ...], bool, int]:
        doomed = self.images.will_delete_image(reference)
        users = [item.container_id for item in self.engine.containers() if doomed and item.image_id == doomed.image_id]
        if users:
            raise FailedPrecondition(
                f"The image {reference} is used by {len(users)} containers, the first being {users[0]}.",
                reason="IMAGE_IN_USE",
                next_step="Remove these containers first.",
            )
        return self.images.delete(reference)

    async def watch(self, revision: int) -> AsyncIterator[ContainerEvent]:
        """Yields the changes after a revision, for ever; `ResourceExhausted` `WATCH_TOO_SLOW` for who lags behind.

        From revision 0 every container comes first, as it is now.
        """
        if not revision:
            revision = self.engine.revision()
            for record in sorted(self.engine.containers(), key=lambda item: item.revision):
                yield ContainerEvent(record.revision, EventType.CREATED, record, record.create_time_ns)
        while True:
            events = self.engine.events_after(revision)
            if len(events) > WATCH_LAG:
                raise ResourceExhausted(
                    f"The watcher is {len(events)} events behind.",
                    reason="WATCH_TOO_SLOW",
                    next_step="List the containers and watch from the list's revision.",
                )
            for change in events:
                revision = change.revision
                yield change
            if not events:
                await self._woken(self.engine.changed())

    async def read_logs(self, container_id: str, *, follow: bool, tail: int | None) -> AsyncIterator[LogLine]:
        """Yields the entries of a container's log, and with `follow` what comes until it exits."""
        offset = 0 if tail is None else self.logs.offset_of_tail(container_id, tail)
        while True:
            more = follow and self.logs.is_open(container_id)
            lines, offset = self.logs.read(container_id, offset)
            for line in lines:
                yield line
            if lines:
                continue
            if not more:
                return
            await self._woken(self.logs.queue(container_id))

    async def _woken(self, queue: WaitQueue) -> None:
        waiter = Waiter()
        queue.add(waiter)
        try:
            await self.performer(Wait(waiter, None))
        finally:
            queue.remove(waiter)

    def _ports(self, database: Database, memory: HostMemory, epoch: int) -> Ports:
        environment = self._environment
        return Ports(
            host=environment.host,
            clock=self.clock,
            rng=environment.rng.child(f"container-runtime/{epoch}"),
            memory=memory,
            kick=self.performer.kick,
            record=environment.layer.events.record,
            span=trace.span,
            repository=database,
            images=self.images,
            logs=self.logs,
            upper_limit_bytes=self._config.upper_limit_bytes,
            max_sandboxes=self._config.max_sandboxes,
        )

    def _rebooted(self, bus: MemoryBus, memory_lost: bool, clients: Clients, memory: HostMemory) -> None:
        clients.use(bus)
        memory.use(bus)
        self.engine.host_rebooted(memory_lost)

    def _log_full(self, container_id: str) -> None:
        self._environment.layer.events.record(
            self.names.container(container_id), "log.full", rule="a log holds at most 256 MiB"
        )
