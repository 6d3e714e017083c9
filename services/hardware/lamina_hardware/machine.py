"""The machine behind the service: RAM, cores, contexts, run groups, and whose they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import topology_pb2

from lamina_hardware import topology
from lamina_hardware.config import HardwareConfig
from lamina_hardware.contexts.exit_controls import ControlState
from lamina_hardware.contexts.posted_writes import PostedWrites
from lamina_hardware.contexts.registers import RegisterAccess
from lamina_hardware.contexts.updates import group_change, update_context
from lamina_hardware.convert import cpu
from lamina_hardware.devices.devices import HostDevices
from lamina_hardware.devices.disk import DiskDevices
from lamina_hardware.devices.disks import Disks
from lamina_hardware.devices.dma_domains import HostDomains
from lamina_hardware.devices.interrupt_routes import InterruptRoutes
from lamina_hardware.devices.nics import HostNics
from lamina_hardware.devices.wires import HostWires
from lamina_hardware.dirty_logs import HostDirtyLogs
from lamina_hardware.domain.contexts.context import Context, Handle
from lamina_hardware.domain.contexts.run_groups import RunGroup
from lamina_hardware.domain.devices.device import Device
from lamina_hardware.domain.machine_events import CoreChange, DeviceChange, DeviceNews, MachineEvents, News
from lamina_hardware.engine_cores import check_clock, check_cores, choose_cores, count_cores, time_slice_of
from lamina_hardware.engines.interface import CoreEngine, CorePath
from lamina_hardware.engines.model.engine import ModelEngine
from lamina_hardware.faults.devices import DeviceFaults
from lamina_hardware.faults.disks import DiskFaults
from lamina_hardware.faults.host import HardwareFaults
from lamina_hardware.faults.nics import NicFaults
from lamina_hardware.host_facts import HostFacts
from lamina_hardware.io.cores.dispatcher import Dispatcher
from lamina_hardware.io.cores.lazy import LazyCore
from lamina_hardware.io.disk_files import DiskFolder
from lamina_hardware.io.host_files import HostFiles
from lamina_hardware.io.register_file import seed
from lamina_hardware.io.reset import reset_registers
from lamina_hardware.memory import HostMemory
from lamina_hardware.names import Names
from lamina_hardware.performance import Performance
from lamina_hardware.request_ids import Requests
from lamina_kit.bus.file import Identity
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import RunPage
from lamina_kit.checks import Checks
from lamina_kit.engines import load_engine
from lamina_kit.errors import NotFound
from lamina_kit.layer.service import Environment

_MAX_RANGES = 4096


class Machine:
    """One host. Everything exists from `start` to `stop`."""

    memory: HostMemory
    dispatcher: Dispatcher
    devices: HostDevices
    routes: InterruptRoutes
    domains: HostDomains
    dirty_logs: HostDirtyLogs
    disks: Disks
    disk_devices: DiskDevices
    nics: HostNics
    wires: HostWires
    bus: MemoryBus
    path: CorePath
    controls: ControlState
    posted: PostedWrites
    registers: RegisterAccess
    performance: Performance

    def __init__(self, environment: Environment, config: HardwareConfig) -> None:
        self._environment = environment
        self._config = config
        self.names = Names(environment.host)
        self.clock = environment.clock
        engine_class = load_engine("hardware", environment.layer.engine)
        check_clock(engine_class, environment.layer.engine, environment.clock.mode)
        self.engine: ModelEngine = engine_class(count_cores(engine_class, config.cores), config.run_pages)
        self._real_host = HostFacts(HostFiles(Path(config.host_root)))
        self.facts = self._real_host if self.engine.shows_host else None
        self._requests = Requests()
        self._running = False
        self.record = environment.layer.events.record
        self.sessions = environment.layer.sessions
        self.events = MachineEvents()
        HardwareFaults(self, self.engine.core_count, config.memory_bytes).register(environment.layer.faults)
        DeviceFaults(self).register(environment.layer.faults)
        DiskFaults(self).register(environment.layer.faults)
        NicFaults(self).register(environment.layer.faults)

    @property
    def is_on(self) -> bool:
        """Whether the machine has power."""
        return self._running

    async def start(self) -> None:
        """Makes RAM and cores; a new start of the machine has a new boot id."""
        environment, config = self._environment, self._config
        assert environment.bus_path is not None, "the hardware layer needs a path for its memory bus"
        layer = environment.layer
        layer.boot_id = environment.rng.id("boot")
        identity = Identity(environment.host, layer.boot_id)
        self.bus = MemoryBus.create(
            environment.bus_path,
            config.memory_bytes,
            config.run_pages,
            dma_bytes=config.dma_bytes,
            reset=True,
            identity=identity,
        )
        environment.bus = self.bus
        self.path = choose_cores(self.engine, config.core_path, environment.state_dir, self.bus)
        self.path.shared.note = self._note_stuck
        layer.capabilities = self.path.capabilities
        cores: list[CoreEngine] = [LazyCore(self.path) for _ in range(self.engine.core_count)]
        time_slice = time_slice_of(self.path, config, environment.clock.mode)
        self.dispatcher = Dispatcher(
            self.engine, cores, self.bus, environment.clock, time_slice, self._note_throttled, self._note_lost
        )
        self.dispatcher.start()
        self.controls = ControlState(self.dispatcher, self.path.capabilities)
        self.posted = PostedWrites(self.bus, self.controls, lambda context: context in self.engine.contexts.entries())
        self.dispatcher.settled = self.posted.note
        self.registers = RegisterAccess(self.bus, self.controls, self.dispatcher, self.path.shared)
        self.memory = HostMemory(self.bus, layer.boot_id)
        drop = self.dispatcher.drop_written_code
        self.devices = HostDevices(self.bus, environment.clock, self.names, self.record, drop)
        self.devices.told = self._note_device
        if self.facts is not None:
            self.facts.plug(self.devices)
        self.devices.plug_engines(config.dma_engines)
        self.routes = InterruptRoutes(self.devices, self.dispatcher.interrupts, self.engine.contexts)
        self.devices.route = self.routes.take
        self.domains = HostDomains(self.devices, self.record)
        self.dirty_logs = HostDirtyLogs(self.bus, self.dispatcher.forget_translations, self.path.shared)
        self._open_disks()
        self._plug_nics()
        layer.sessions.adopted = self._count_owned
        layer.sessions.on_broken(lambda owner, epoch: self._stop_owned(owner))
        layer.sessions.on_expired(lambda owner, epoch: self._free_owned(owner))
        host, path = self.names.format_host(), self.path
        layer.events.record(host, "core_path.chosen", rule=path.name, reason=path.reason, cores=self.engine.core_count)
        self.performance = Performance(self.engine, self.dispatcher, self.path)
        self._started_ns = environment.clock.now_ns()
        self._running = True

    async def stop(self) -> None:
        """Stops all runs and frees the cores; the RAM file stays."""
        if self._running:
            self._running = False
            self.events.end()
            self.wires.stop()
            self.devices.stop()
            self.performance.stop()
            self.disks.stop()
            await self.dispatcher.stop()
            self.path.shared.close()
            self.bus.close()
            self.record(self.names.format_host(), "host.powered_off")

    def uptime_ns(self) -> int:
        """Returns the time since the machine's start."""
        return self.clock.now_ns() - self._started_ns

    def _open_disks(self) -> None:
        """Opens the disks that are kept from earlier runs."""
        environment = self._environment
        self.disk_devices = DiskDevices(self.devices)
        self.disks = Disks(
            DiskFolder(environment.state_dir / "disks"),
            self.devices.timers,
            environment.rng.child("disks"),
            lambda disk, event, **inputs: self.record(self.names.format_disk(disk), event, **inputs),
            self.disk_devices,
            self.devices.requests,
            environment.clock.mode == "virtual",
        )
        self.disks.start()

    def _plug_nics(self) -> None:
        """Puts NICs into the machine, on no wire yet."""
        environment, names = self._environment, self.names
        self.nics = HostNics(environment.host, self.devices, self._note_link)
        self.nics.plug(self._config.nics)
        self.wires = HostWires(
            self.devices.timers,
            environment.rng.child("wires"),
            lambda wire, event, **inputs: self.record(names.format_wire(wire), event, **inputs),
            self.devices.requests,
        )

    def _note_device(self, device: Device, news: DeviceNews) -> None:
        self.note(DeviceChange(device.id, news))

    def _note_link(self, device: Device, up: bool) -> None:
        self._note_device(device, DeviceNews.LINK_UP if up else DeviceNews.LINK_DOWN)
        self.record(self.names.format_nic(device.id), "link.up" if up else "link.down")

    @property
    def state_dir(self) -> Path:
        """Where the layer keeps what it keeps; relative paths of sockets begin there."""
        return self._environment.state_dir

    def describe(self) -> pb.Host:
        """Returns the host as a message."""
        return pb.Host(
            name=self.names.format_host(),
            boot_id=self._environment.layer.boot_id,
            engine=self._environment.layer.engine,
            core_count=self.engine.core_count,
            memory_bytes=self._config.memory_bytes,
            core_path=self.path.name,
            core_path_reason=self.path.reason,
            counters=cpu.counters(self.engine.totals(self.dispatcher.counts)),
            tsc_frequency_hz=self.path.shared.tsc_frequency_hz(),
        )

    async def topology(self) -> topology_pb2.Topology:
        """Returns what the machine consists of."""
        if self.facts is not None:
            return await self.facts.topology()
        name = await self._real_host.processor() if self.engine.cores_of == "kvm" else ""
        cores, memory_bytes = self._config.cores, self._config.memory_bytes
        return topology.model(cores, memory_bytes, self.path, has_iommu=True, processor=name)

    def note(self, news: News) -> None:
        """Tells those that watch the machine what happened to it."""
        self.events.note(news, self.clock.now_ns())

    def list_cores(self) -> list[pb.Core]:
        """Returns the cores as messages."""
        arbiter = self.engine.arbiter
        return [
            cpu.core(n, run, arbiter.lost[n], self.dispatcher.counts(n), self.names)
            for n, run in enumerate(arbiter.running)
        ]

    def owner(self, context: Any) -> str:
        """Returns the owner whose session a call names; empty for none."""
        key = self._environment.layer.sessions.find(context)
        return key.owner if key is not None else ""

    def create_run_group(self, request: pb.CreateRunGroupRequest, owner: str) -> RunGroup:
        """Makes a run group, once for a request id."""
        known = self._requests.find("group", request.request_id)
        if isinstance(known, RunGroup) and known in self.engine.groups.entries():
            return known
        wish = cpu.run_group_wish(request, self.names, self.engine.core_count, owner, self.clock.now_ns())
        group = self.engine.groups.create(wish)
        self.record(
            self.names.format_run_group(group.name),
            "run_group.created",
            weight=group.share.weight,
            quota_ns=group.quota_ns,
        )
        self._requests.remember("group", request.request_id, group)
        return group

    def find_run_group(self, name: str) -> RunGroup:
        """Returns a run group by its resource name. Raises `NotFound` `RUN_GROUP_UNKNOWN`."""
        if not name:
            raise NotFound("The root run group has no name.", reason="RUN_GROUP_UNKNOWN", next_step="Name a group.")
        return self.engine.groups.get(self.names.run_group(name))

    def create_context(self, request: pb.CreateContextRequest, owner: str) -> Context:
        """Makes a context with reset registers, once for a request id."""
        known = self._requests.find("context", request.request_id)
        if isinstance(known, Context) and known in self.engine.contexts.entries():
            return known
        check_cores(self.engine)
        wish = cpu.context_wish(request.context, self.names, self.bus.size, owner)
        self.controls.check_creation(exceptions=wish.exceptions, cpuid=wish.cpuid, syscall=wish.syscall, eptp=wish.eptp)
        made = self.engine.create_context(wish)
        view = self.bus.run_page(made.run_page)
        reset_registers(view, ring=0 if made.eptp else 3)
        seed(RunPage(view), self._seed(made))
        self.record(self.names.format_context(made.key), "context.created", run_group=made.group, label=made.label)
        self._requests.remember("context", request.request_id, made)
        return made

    def update_context(self, context: Context, message: pb.Context, paths: list[str]) -> None:
        """Changes an idle context."""
        if "eptp" in paths:
            self.controls.check_creation(exceptions=0, cpuid=False, syscall=False, eptp=message.eptp)
        update_context(self.engine, context, message, paths, self.names, self.bus.size)
        if "eptp" in paths:
            self.dispatcher.forget(context)
        self.record(self.names.format_context(context.key), "context.changed", fields=",".join(sorted(paths)))

    async def update_run_group(self, message: pb.RunGroup, paths: list[str]) -> RunGroup:
        """Changes a run group; when this returns nothing of it runs on a core that it no longer has."""
        group = self.engine.groups.get(self.names.run_group(message.name))
        change = group_change(message, paths, group, self.engine.core_count)
        self.engine.groups.update(group.name, change, self.clock.now_ns())
        self.record(
            self.names.format_run_group(group.name),
            "run_group.changed",
            weight=group.share.weight,
            quota_ns=group.quota_ns,
            period_ns=group.period_ns,
        )
        await self.dispatcher.rearrange()
        return group

    def _seed(self, context: Context) -> int:
        """Returns where a context's random numbers begin: the same machine and context, the same numbers."""
        text = f"{self._environment.layer.boot_id} {context.key}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    async def delete_context(self, context: Context) -> None:
        """Stops a context and forgets it."""
        await self.dispatcher.remove(context)
        self.controls.forget(context)
        self.posted.note(context)
        self.performance.forget(context)
        counts = context.counts
        self.record(
            self.names.format_context(context.key),
            "context.deleted",
            instructions=counts.instructions,
            run_time_ns=counts.run_time_ns,
            exits=sum(counts.exits),
        )

    def delete_run_group(self, name: str) -> None:
        """Removes an empty group. Raises as `RunGroups.delete` does."""
        self.engine.groups.delete(name)
        self.record(self.names.format_run_group(name), "run_group.deleted")

    def find_context(self, message: handle_pb2.Handle) -> Context:
        """Returns a context. Raises `FailedPrecondition` `HANDLE_STALE`."""
        return self.engine.contexts.get(Handle(message.id, message.generation))

    def check_shootdown(self, request: pb.ShootdownRequest) -> None:
        """Raises `InvalidArgument` for a malformed shootdown."""
        with Checks() as check:
            check.that(len(request.ranges) <= _MAX_RANGES, "ranges", f"has more than {_MAX_RANGES} entries")
            check.that(bool(request.root or request.eptp), "root", "and eptp are both 0")
            for entry in request.ranges:
                check.aligned("ranges.start", entry.start, 4096)
                check.range("ranges.size_bytes", entry.size_bytes, 0, 1 << 62)

    def _stop_owned(self, owner: str) -> None:
        """Stops the contexts of an owner whose session broke, and takes its devices, at once."""
        self.devices.stop_owned(owner)
        for context in self.engine.owned(owner):
            if self.dispatcher.stop_run(context):
                name = self.names.format_context(context.key)
                self._environment.layer.events.record(name, "context.stopped", rule="session broke", owner=owner)

    def _count_owned(self, owner: str) -> int:
        """Returns how many contexts, groups, I/O groups, DMA domains, buffers and dirty logs belong to an owner."""
        groups = sum(group.owner == owner for group in self.engine.groups.entries())
        others = self.devices.count_owned(owner) + self.dirty_logs.count_owned(owner) + len(self.disks.owned(owner))
        return len(self.engine.owned(owner)) + groups + others

    async def _free_owned(self, owner: str) -> None:
        """Frees what an owner that did not come back has left."""
        for context in self.engine.owned(owner):
            await self.delete_context(context)
        for group in reversed(self.engine.groups.entries()):
            if group.owner == owner and not group.contexts and not self.engine.groups.children(group.name):
                self.delete_run_group(group.name)
        self.devices.free_owned(owner)
        self.dirty_logs.free_owned(owner)
        self.disks.free_owned(owner)

    def _note_lost(self, core: int, error: BaseException) -> None:
        self.note(CoreChange(core, lost=True))
        self._environment.layer.events.record(
            self.names.format_core(core), "core.lost", rule="its thread failed", error=repr(error)
        )

    def _note_stuck(self, context: int, what: str) -> None:
        self._environment.layer.events.record(
            self.names.format_context(context), "context.stuck", rule="the processor cannot go on with it", detail=what
        )

    def _note_throttled(self, group: RunGroup) -> None:
        self._environment.layer.events.record(
            self.names.format_run_group(group.name),
            "run_group.throttled",
            rule="quota used up in this period",
            used_ns=group.window_used,
            quota_ns=group.quota_ns,
            period_ns=group.period_ns,
        )
