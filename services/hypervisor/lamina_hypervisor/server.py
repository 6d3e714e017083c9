"""Serves `lamina.hypervisor.v1`: parses requests, calls the hypervisor, converts what it returns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from lamina.hypervisor.v1 import hypervisor_pb2_grpc

from lamina_hypervisor import convert, unserved
from lamina_hypervisor.config import HypervisorConfig
from lamina_hypervisor.domain.exits.time_slices import SliceLedger
from lamina_hypervisor.domain.inventory import MAX_PAGE, Inventory
from lamina_hypervisor.domain.memory.addresses import Gva
from lamina_hypervisor.domain.vm import WITHOUT_POWER, Verdict, Vm
from lamina_hypervisor.faults import HypervisorFaults
from lamina_hypervisor.hypervisor import Hypervisor
from lamina_hypervisor.io.cores import Cores
from lamina_hypervisor.io.guest_memory import GuestMemory
from lamina_hypervisor.io.images import MAX_BYTES, Images
from lamina_hypervisor.io.performer import bind
from lamina_hypervisor.io.runner import Runner
from lamina_hypervisor.io.session_calls import SessionCalls
from lamina_hypervisor.io.store import Store
from lamina_hypervisor.metrics import families
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.engines import load_engine
from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.layer.service import Environment

SERVICE = "lamina.hypervisor.v1.VirtualMachines"
Context = grpc.aio.ServicerContext[Any, Any]


class VirtualMachinesServicer(hypervisor_pb2_grpc.VirtualMachinesServicer):
    """The methods of the contract."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor

    def _message(self, vm: Vm) -> pb.VirtualMachine:
        return convert.vm_message(vm, self._hypervisor.machine(vm.name))

    async def UploadImage(self, request_iterator: AsyncIterator[pb.UploadImageRequest], context: Context) -> pb.Image:
        """Uploads a kernel image."""
        image, expected = await _collect(request_iterator)
        digest = self._hypervisor.upload(image, expected)
        return pb.Image(digest=digest, size_bytes=len(image), kind=pb.Image.KIND_KERNEL)

    async def CreateVirtualMachine(
        self, request: pb.CreateVirtualMachineRequest, context: Context
    ) -> pb.VirtualMachine:
        """Creates a VM without power."""
        convert.check_create(request)
        digest = request.virtual_machine.kernel_digest or self._hypervisor.upload(request.kernel, "")
        return self._message(self._hypervisor.create(convert.definition(request, digest), request.request_id))

    async def GetVirtualMachine(self, request: pb.GetVirtualMachineRequest, context: Context) -> pb.VirtualMachine:
        """Returns one VM."""
        return self._message(self._hypervisor.inventory.get(request.name))

    async def ListVirtualMachines(
        self, request: pb.ListVirtualMachinesRequest, context: Context
    ) -> pb.ListVirtualMachinesResponse:
        """Lists VMs."""
        convert.check_page(request.page_size, MAX_PAGE)
        vms, token = self._hypervisor.inventory.page(request.page_size, request.page_token)
        messages = [self._message(vm) for vm in vms]
        return pb.ListVirtualMachinesResponse(virtual_machines=messages, next_page_token=token)

    async def StartVirtualMachine(self, request: pb.StartVirtualMachineRequest, context: Context) -> pb.VirtualMachine:
        """Gives a VM power."""
        return self._message(await self._hypervisor.start(request.name))

    async def StopVirtualMachine(self, request: pb.StopVirtualMachineRequest, context: Context) -> pb.VirtualMachine:
        """Takes a VM's power away."""
        return self._message(await self._hypervisor.stop(request.name))

    async def PauseVirtualMachine(self, request: pb.PauseVirtualMachineRequest, context: Context) -> pb.VirtualMachine:
        """Stops a VM's vCPUs."""
        return self._message(await self._hypervisor.pause(request.name))

    async def ResumeVirtualMachine(
        self, request: pb.ResumeVirtualMachineRequest, context: Context
    ) -> pb.VirtualMachine:
        """Lets a VM's vCPUs go on."""
        return self._message(await self._hypervisor.resume(request.name))

    async def DeleteVirtualMachine(
        self, request: pb.DeleteVirtualMachineRequest, context: Context
    ) -> pb.DeleteVirtualMachineResponse:
        """Deletes a VM without power."""
        self._hypervisor.delete(request.name)
        return pb.DeleteVirtualMachineResponse()

    async def ReadSerial(self, request: pb.ReadSerialRequest, context: Context) -> AsyncIterator[pb.ReadSerialResponse]:
        """Reads serial output."""
        async for offset, data in self._hypervisor.read_serial(request.name, request.offset, request.follow):
            yield pb.ReadSerialResponse(offset=offset, data=data)

    async def WriteSerial(self, request: pb.WriteSerialRequest, context: Context) -> pb.WriteSerialResponse:
        """Writes serial input."""
        convert.check_serial_input(request.data)
        pending = await self._hypervisor.write_serial(request.name, request.data)
        return pb.WriteSerialResponse(pending_bytes=pending)

    async def GetExitLedger(self, request: pb.GetExitLedgerRequest, context: Context) -> pb.ExitLedger:
        """Returns the exit ledger."""
        machine = self._hypervisor.machine(request.name)
        return pb.ExitLedger() if machine is None else convert.ledger_message(machine.ledger, machine.serial.sent)

    async def ListVcpus(self, request: pb.ListVcpusRequest, context: Context) -> pb.ListVcpusResponse:
        """Lists vCPUs."""
        machine = self._hypervisor.machine(request.name)
        vcpus = machine.vcpus if machine is not None else []
        powered = self._hypervisor.inventory.get(request.name).state not in WITHOUT_POWER
        return pb.ListVcpusResponse(vcpus=[convert.vcpu_message(request.name, vcpu, powered) for vcpu in vcpus])

    async def ListSlices(self, request: pb.ListSlicesRequest, context: Context) -> pb.ListSlicesResponse:
        """Lists time slices."""
        convert.check_page(request.page_size, 4096)
        slices = self._hypervisor.slices(request.name, request.page_size or convert.DEFAULT_SLICES)
        return pb.ListSlicesResponse(slices=[convert.slice_message(entry) for entry in slices])

    async def TranslateAddress(
        self, request: pb.TranslateAddressRequest, context: Context
    ) -> pb.TranslateAddressResponse:
        """Translates a guest virtual address."""
        access = convert.access(request)
        machine, found = self._hypervisor.translate(request.name, request.vcpu, Gva(request.address), access)
        return convert.walk_message(found, machine.vcpus[request.vcpu].registers.cr3, machine.eptp)

    async def ListGuestPages(self, request: pb.ListGuestPagesRequest, context: Context) -> pb.ListGuestPagesResponse:
        """Lists mapped guest pages."""
        convert.check_page(request.page_size, convert.MAX_PAGES)
        size = request.page_size or convert.DEFAULT_PAGES
        found = self._hypervisor.guest_pages(request.name, convert.page_start(request.page_token), size + 1)
        token = f"{found[size][0]:x}" if len(found) > size else ""
        pages = [convert.page_message(gpa, entry) for gpa, entry in found[:size]]
        return pb.ListGuestPagesResponse(pages=pages, next_page_token=token)


async def _collect(requests: AsyncIterator[pb.UploadImageRequest]) -> tuple[bytes, str]:
    """Returns (image, expected digest) of an upload; it ends at 64 MiB."""
    image, expected = bytearray(), ""
    async for request in requests:
        unserved.refuse_kind(request)
        expected = expected or request.digest
        image += request.data
        if len(image) > MAX_BYTES:
            raise InvalidArgument(
                f"The image has more than {MAX_BYTES} bytes.",
                reason="IMAGE_TOO_BIG",
                next_step="Give a kernel of at most 64 MiB.",
            )
    if not image:
        raise InvalidArgument("The image is empty.", reason="IMAGE_EMPTY", next_step="Send the kernel's bytes.")
    return bytes(image), expected


class HypervisorService:
    """The hypervisor layer as the shell starts it."""

    layer = "hypervisor"

    def __init__(self, environment: Environment, config: HypervisorConfig) -> None:
        self._environment = environment
        self._config = config
        self._store = Store(environment.state_dir / "vms.sqlite")
        self._slices = SliceLedger(config.kept_slices)
        self._hypervisor = Hypervisor(
            Inventory(environment.host), self._store, Images(environment.state_dir / "images"), self._slices,
            environment.layer.events, environment.clock,
        )  # fmt: skip
        HypervisorFaults(self._hypervisor).register(environment.layer.faults)
        environment.layer.metrics.add(partial(families, self._hypervisor.inventory))
        self._bus: MemoryBus | None = None
        self._sessions: list[OwnerSession] = []
        self._calls: list[SessionCalls] = []
        self._cores: Cores | None = None
        self._memory: GuestMemory | None = None

    @property
    def service_names(self) -> tuple[str, ...]:
        """Full names of this layer's own services."""
        return (SERVICE,)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds this layer's servicer."""
        servicer = VirtualMachinesServicer(self._hypervisor)
        hypervisor_pb2_grpc.add_VirtualMachinesServicer_to_server(servicer, server)

    async def start(self) -> None:
        """Opens the sessions below and the memory bus, and recovers what is recorded."""
        environment = self._environment
        epoch = self._store.next_epoch()
        hardware = await self._session("hardware", epoch)
        mmu = await self._session("mmu", epoch)
        environment.layer.boot_id = mmu.handshake.boot_id
        self._bus = _open_bus(environment)
        self._cores = Cores(environment.channels["hardware"], self._calls_in(hardware, f"hardware/{epoch}"))
        self._memory = GuestMemory(environment.channels["mmu"], self._calls_in(mmu, f"mmu/{epoch}"))
        engine_class = load_engine(self.layer, self._config.engine)
        engine = engine_class(self._bus, environment.clock, environment.rng, self._slices)
        environment.layer.engine, environment.layer.capabilities = engine.name, engine.capabilities
        runner = Runner(engine, self._hypervisor.ending, self._hypervisor.ended)
        runner.perform = bind(environment.clock, self._cores, self._memory, runner.hold_lost)
        self._hypervisor.attach(runner)
        await self._cores.open()
        self._hypervisor.recover()
        for session in self._sessions:
            session.on_lost(partial(_lose_all, runner))

    async def stop(self) -> None:
        """Takes all power away and closes everything. Idempotent."""
        bus, self._bus = self._bus, None
        if bus is not None and self._cores is not None and self._memory is not None:
            await self._hypervisor.close()
            await self._memory.close()
            try:
                await self._cores.close()
            except LaminaError as error:
                self._environment.layer.events.record(SERVICE, "cores.close-failed", cause=error.reason)
        for calls in self._calls:
            await calls.close()
        for session in self._sessions:
            await session.close(free=True)
        self._sessions.clear()
        self._store.close()
        if bus is not None:
            bus.close()

    def _calls_in(self, session: OwnerSession, label: str) -> SessionCalls:
        environment = self._environment
        rng = environment.rng.child(f"requests/{label}")
        self._calls.append(SessionCalls(session, environment.clock, rng, environment.layer.events))
        return self._calls[-1]

    async def _session(self, layer: str, epoch: int) -> OwnerSession:
        environment = self._environment
        owner = f"{environment.host}/{self.layer}"
        session = await OwnerSession.open(
            environment.channels[layer], owner, epoch, environment.clock, self._store.save_epoch, fresh=True
        )
        self._sessions.append(session)
        return session


def _lose_all(runner: Runner) -> None:
    """Ends every machine: a layer below that goes is the host's loss of power."""
    for name in runner.names():
        runner.lose(name, Verdict("HOST_UNAVAILABLE", "The session with a layer below broke.", crashed=True))


def _open_bus(environment: Environment) -> MemoryBus:
    if environment.bus_path is None:
        raise FailedPrecondition(
            "The hypervisor layer needs the memory bus of its host.",
            reason="BUS_NOT_CONFIGURED",
            next_step="Run it on the host whose hardware service it uses, with the same bus path.",
        )
    return MemoryBus.open(environment.bus_path)


def build(environment: Environment, config: HypervisorConfig) -> HypervisorService:
    """Returns the service of this layer."""
    return HypervisorService(environment, config)
