"""The vswitch layer as a service: the list of its gRPC services, what they stand on, its start and its end."""

from __future__ import annotations

import asyncio
from functools import partial

from grpc import aio
from lamina.vswitch.v1 import (
    backends_pb2_grpc,
    captures_pb2_grpc,
    networks_pb2_grpc,
    overlays_pb2_grpc,
    policies_pb2_grpc,
    rings_pb2_grpc,
    translations_pb2_grpc,
    uplinks_pb2_grpc,
)
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_kit.engines import load_engine
from lamina_kit.layer.owner_session import GRACE_NS, OwnerSession
from lamina_kit.layer.service import Environment, Service
from lamina_kit.telemetry.log import logger
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.engine_choice import check_clock
from lamina_vswitch.engines.interface import SwitchEngine
from lamina_vswitch.faults import VswitchFaults
from lamina_vswitch.io.nic.driver import HardwareBelow
from lamina_vswitch.io.store.backends import BackendStore
from lamina_vswitch.io.store.definitions import SqliteStore
from lamina_vswitch.io.store.networks import NetworkStore
from lamina_vswitch.io.store.overlays import OverlayStore
from lamina_vswitch.io.store.policies import PolicyStore
from lamina_vswitch.io.store.translations import TranslationStore
from lamina_vswitch.io.store.uplinks import UplinkStore
from lamina_vswitch.metrics import defects, families
from lamina_vswitch.names import Names
from lamina_vswitch.nat.kernel_outsides import KernelOutsides, OutsidesByKind
from lamina_vswitch.nat.translations import Translations
from lamina_vswitch.nat.uplink_outsides import NatOutsides
from lamina_vswitch.networks.networks import Networks
from lamina_vswitch.pacer import Pacer
from lamina_vswitch.plane.loading import PlaneLoader
from lamina_vswitch.ports.backends import BackendTable
from lamina_vswitch.ports.holds import Holding
from lamina_vswitch.ports.rings import RingStreams
from lamina_vswitch.ports.streams import Streams
from lamina_vswitch.serving.backends import BackendsServicer
from lamina_vswitch.serving.captures import CapturesServicer
from lamina_vswitch.serving.networks import NetworksServicer
from lamina_vswitch.serving.overlays import OverlaysServicer
from lamina_vswitch.serving.policies import PoliciesServicer
from lamina_vswitch.serving.port_rings import PortRingsServicer
from lamina_vswitch.serving.ports import PortsServicer
from lamina_vswitch.serving.switches import SwitchesServicer
from lamina_vswitch.serving.translations import TranslationsServicer
from lamina_vswitch.serving.uplinks import UplinksServicer
from lamina_vswitch.serving.views import Views
from lamina_vswitch.switches.catalog import Catalog, Limits
from lamina_vswitch.switches.policies import PolicyBook
from lamina_vswitch.uplinks.nics import UplinkNics
from lamina_vswitch.uplinks.overlays import OverlayTable
from lamina_vswitch.uplinks.uplinks import UplinkTable
from lamina_vswitch.watching.frame_paths import FramePaths
from lamina_vswitch.watching.watchers import Watchers

STORE_FILE = "vswitch.sqlite"
RING_FOLDER = "rings"


def build(environment: Environment, config: VswitchConfig) -> Service:
    """Return the service. `environment.layer.engine` names its engine; nothing is opened before `start`."""
    return VswitchService(environment, config)


class VswitchService:
    """The switches of one host."""

    layer = "vswitch"
    service_names = (
        "lamina.vswitch.v1.Switches",
        "lamina.vswitch.v1.Ports",
        "lamina.vswitch.v1.Policies",
        "lamina.vswitch.v1.PortRings",
        "lamina.vswitch.v1.Backends",
        "lamina.vswitch.v1.Networks",
        "lamina.vswitch.v1.Captures",
        "lamina.vswitch.v1.Translations",
        "lamina.vswitch.v1.Uplinks",
        "lamina.vswitch.v1.Overlays",
    )

    def __init__(self, environment: Environment, config: VswitchConfig) -> None:
        self._environment = environment
        self._log = logger(self.layer)
        engine_class = load_engine(self.layer, environment.layer.engine)
        check_clock(engine_class, environment.clock.mode)
        engine: SwitchEngine = engine_class(self._record)
        self._engine = engine
        environment.layer.capabilities = engine.capabilities
        self._store = SqliteStore(environment.state_dir / STORE_FILE)
        limits = Limits(config.max_switches, config.max_ports)
        self._catalog = Catalog(environment.host, engine, self._store, limits, self._record)
        self._planes = planes = PlaneLoader(engine, environment.rng.child("plane"))
        store = BackendStore(self._store)
        self._backends = BackendTable(self._catalog, store, environment.clock, planes, bypass=config.bypass)
        self._watchers = Watchers(self._catalog, self._store, environment.clock)
        self._streams = Streams(self._catalog, environment.clock)
        self._rings = RingStreams(self._catalog, environment.clock, environment.state_dir / RING_FOLDER, planes)
        environment.layer.metrics.add(partial(families, self._catalog, environment.clock))
        environment.layer.metrics.add(lambda: [defects(self._defects)])
        rng, events = environment.rng.child("faults"), environment.layer.events
        self._faults = VswitchFaults(self._catalog, environment.clock, rng, events)
        self._faults.register(environment.layer.faults)
        rng = environment.rng.child("policies")
        self._policies = PolicyBook(
            self._catalog, PolicyStore(self._store), rng, environment.clock.now_ns, self._record
        )
        self._defects = 0
        self._catalog.failed = self._failed
        self._pacer = Pacer(environment.clock, engine.advance, self._failed)
        engine.timer = self._pacer.wake_at
        records = NetworkStore(self._store, lambda: environment.clock.wall_ns() - environment.clock.now_ns())
        rng, events = environment.rng.child("networks"), environment.layer.events
        self._networks = Networks(self._catalog, records, environment.clock, rng, config.max_networks, events.record)
        rng = environment.rng.child("translations")
        tables = TranslationStore(self._store)
        self._translations = Translations(self._networks, tables, environment.clock, rng, events.record)
        now_ns = environment.clock.now_ns
        self._uplinks = UplinkTable(self._catalog, UplinkStore(self._store), self._policies, self._networks, now_ns)
        rng = environment.rng.child("outsides")
        self._outsides = NatOutsides(self._catalog, self._uplinks, self._networks, environment.clock, rng)
        self._kernel = KernelOutsides(self._catalog, self._networks, config.nat_namespace, events.record)
        self._translations.outsides = OutsidesByKind(self._kernel, self._outsides)
        self._policies.resized.append(self._translations.resized)
        self._nics = UplinkNics(self._catalog, self._uplinks, self._policies, environment.clock)
        rng = environment.rng.child("overlays")
        overlays = OverlayStore(self._store)
        self._overlays = OverlayTable(self._catalog, overlays, self._uplinks, self._networks, environment.clock, rng)
        engine.set_lease_book(self._networks)
        self._outside: int | None = None
        self._hardware: OwnerSession | None = None
        self._grace: asyncio.Task[None] | None = None

    def register(self, server: aio.Server) -> None:
        """Add the layer's services to a server."""
        views = Views(self._catalog, self._environment)
        rpc.add_SwitchesServicer_to_server(SwitchesServicer(views, self._policies), server)
        rpc.add_PortsServicer_to_server(PortsServicer(views, self._streams), server)
        policies_pb2_grpc.add_PoliciesServicer_to_server(PoliciesServicer(views, self._policies), server)
        networks = NetworksServicer(self._networks, Names(self._environment.host))
        networks_pb2_grpc.add_NetworksServicer_to_server(networks, server)
        translations = TranslationsServicer(self._translations, Names(self._environment.host))
        translations_pb2_grpc.add_TranslationsServicer_to_server(translations, server)
        holding = Holding(self._catalog, self._environment.clock)
        rings_pb2_grpc.add_PortRingsServicer_to_server(PortRingsServicer(self._streams, self._rings, holding), server)
        backends_pb2_grpc.add_BackendsServicer_to_server(BackendsServicer(views, self._backends), server)
        paths = FramePaths(self._catalog, self._networks, self._overlays, self._uplinks, self._backends)
        captures_pb2_grpc.add_CapturesServicer_to_server(CapturesServicer(views, self._watchers, paths), server)
        uplinks_pb2_grpc.add_UplinksServicer_to_server(UplinksServicer(views, self._uplinks, self._nics), server)
        overlays_pb2_grpc.add_OverlaysServicer_to_server(OverlaysServicer(views, self._overlays), server)

    async def start(self) -> None:
        """Open the store, bring the engine to what it holds, and introduce the layer to the hardware below."""
        self._store.open()
        self._networks.load()
        self._translations.load()
        self._uplinks.load()
        self._outsides.load()
        self._kernel.load()
        self._overlays.load()
        self._catalog.restore(self._environment.clock.now_ns())
        self._policies.restore(self._environment.clock.now_ns())
        self._networks.restore()
        self._uplinks.restore()
        self._overlays.restore()
        self._watchers.restore()
        self._backends.restore()
        self._outside = self._engine.descriptor()
        if self._outside is not None:
            asyncio.get_running_loop().add_reader(self._outside, self._listen_outside)
        sessions = self._environment.layer.sessions
        sessions.adopted = lambda owner: len(self._catalog.owned(owner))
        sessions.on_expired(lambda owner, epoch: self._free(owner))
        if self._catalog.owners():
            self._grace = asyncio.get_running_loop().create_task(self._free_orphans())
        hardware = self._environment.channels.get("hardware")
        if hardware is not None:
            owner, epoch = f"{self._environment.host}/vswitch", self._store.next_epoch()
            self._hardware = await OwnerSession.open(
                hardware, owner, epoch, self._environment.clock, self._store.save_epoch, fresh=True
            )  # what an earlier start had of NICs is nothing to this one
            self._environment.layer.boot_id = self._hardware.handshake.boot_id
            self._nics.restore(HardwareBelow(hardware, self._hardware, self._environment.bus_path))
        elif self._engine.descriptor() is not None:
            self._environment.layer.boot_id = self._environment.rng.id("vswitch")

    async def stop(self) -> None:
        """End the streams and close the store. Idempotent."""
        self._streams.stop()
        self._rings.stop()
        self._backends.stop()
        self._planes.stop()
        self._watchers.stop()
        self._faults.stop()
        self._translations.stop()
        self._kernel.stop()
        self._pacer.stop()
        self._networks.stop()
        self._overlays.stop()
        await self._nics.stop()
        self._environment.layer.sessions.close()
        if self._grace is not None:
            self._grace.cancel()
        hardware, self._hardware = self._hardware, None
        if hardware is not None:
            await hardware.close()
        self._store.close()
        if self._outside is not None:
            asyncio.get_running_loop().remove_reader(self._outside)
            self._outside = None
        self._engine.close()

    def _listen_outside(self) -> None:
        self._engine.listen_outside(self._environment.clock.now_ns())

    async def _free_orphans(self) -> None:
        """Free the ports of owners that did not come back after this service started again."""
        owners = self._catalog.owners()
        await self._environment.clock.sleep_ns(GRACE_NS)
        for owner in owners:
            if self._environment.layer.sessions.epoch(owner) == 0:
                self._free(owner)

    def _free(self, owner: str) -> None:
        for port in self._catalog.owned(owner):
            self._catalog.delete_port(port, self._environment.clock.now_ns())

    def _failed(self, error: Exception) -> None:
        """Tell of a task of the switches or a timer that failed by a defect; the others go on."""
        self._defects += 1
        self._log.error("switching.failed", exc_info=error)
        host = f"hosts/{self._environment.host}"
        self._environment.layer.events.record(host, "switching.defect", rule="a task raised", error=repr(error))

    def _record(self, notice: Notice) -> None:
        self._environment.layer.events.record(notice.object, notice.event, rule=notice.rule, **dict(notice.inputs))
