"""Local APICs and interrupts: `lamina.hardware.v1.Interrupts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc import aio
from lamina.hardware.v1 import interrupts_pb2 as pb
from lamina.hardware.v1 import interrupts_pb2_grpc as rpc

from lamina_hardware.convert import interrupts as convert
from lamina_hardware.domain.apic import messages
from lamina_hardware.io.interrupt_controller import Result
from lamina_hardware.serving.pagination import page
from lamina_kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine

Context = aio.ServicerContext[Any, Any]


class InterruptsServicer(rpc.InterruptsServicer):
    """Serves `lamina.hardware.v1.Interrupts`."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    async def ConfigureApic(self, request: pb.ConfigureApicRequest, context: Context) -> pb.Apic:
        """Gives a context a local APIC, changes it, or takes it away."""
        found = self._m.find_context(request.apic.handle)
        wish = self._m.controls.allowed(convert.apic_wish(request.apic, found, self._m.bus.size))
        controller = self._m.dispatcher.interrupts
        controller.configure(found, wish)
        name = self._m.names.format_context(found.key)
        if wish is None:
            self._m.record(name, "apic.removed")
            return pb.Apic(handle=request.apic.handle, mode=pb.Apic.MODE_NONE)
        self._m.record(name, "apic.configured", mode=wish.mode.value, apic_id=wish.apic_id)
        return convert.apic(controller.find(found), self._m.clock.now_ns())

    async def GetApic(self, request: pb.GetApicRequest, context: Context) -> pb.Apic:
        """Returns a context's local APIC."""
        found = self._m.dispatcher.interrupts.find(self._m.find_context(request.handle))
        return convert.apic(found, self._m.clock.now_ns())

    async def RaiseInterrupts(self, request: pb.RaiseInterruptsRequest, context: Context) -> pb.RaiseInterruptsResponse:
        """Raises interrupts."""
        convert.check_interrupts(request)
        controller = self._m.dispatcher.interrupts
        owner = self._m.owner(context)
        domain = convert.domain_key(owner, request.interrupt_domain)
        if any(one.WhichOneof("destination") == "message" for one in request.interrupts):
            controller.check_domain(domain, request.interrupt_domain)
        results = [self._raise(one, domain) for one in request.interrupts]
        controller.go()
        return pb.RaiseInterruptsResponse(results=[int(result) for result in results])  # type: ignore[misc]

    async def ListInterruptRoutes(
        self, request: pb.ListInterruptRoutesRequest, context: Context
    ) -> pb.ListInterruptRoutesResponse:
        """Lists the routes of a device."""
        device = self._m.devices.find(request.device, "device")
        routes = self._m.routes.entries(device)
        found, token = page(routes, lambda entry: f"{entry[0]:03d}", request.page_size, request.page_token)
        return pb.ListInterruptRoutesResponse(
            routes=[convert.route(vector, route) for vector, route in found], next_page_token=token
        )

    async def SetInterruptRoutes(
        self, request: pb.SetInterruptRoutesRequest, context: Context
    ) -> pb.SetInterruptRoutesResponse:
        """Sets routes of a device."""
        device = self._m.devices.find(request.device, "device")
        owner = self._m.owner(context)
        wishes = convert.routes(request, device.model.vector_count, owner)
        self._m.routes.set(device, owner, wishes)
        self._m.record(request.device, "interrupt_routes.set", routes=len(wishes))
        return pb.SetInterruptRoutesResponse()

    def _raise(self, one: pb.Interrupt, domain: str) -> Result:
        controller = self._m.dispatcher.interrupts
        if one.WhichOneof("destination") == "message":
            return controller.send(domain, messages.parse(one.message.address, one.message.data))
        try:
            found = self._m.find_context(one.context.handle)
        except FailedPrecondition:
            return Result.NO_DESTINATION
        return controller.signal(found, convert.kind(one.context.kind), one.context.vector)
