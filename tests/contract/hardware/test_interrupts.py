"""The service `Interrupts`: configurations, messages, routes of devices, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import hardware_pb2
from lamina.hardware.v1 import interrupts_pb2 as pb
from tests.contract.hardware.device_bench import DMA0, Driver, Owner, reason
from tests.contract.hardware.device_bench import variant_with_cores as variant  # noqa: F401 (a fixture)

FRAME = 4096
ADDRESS, VECTOR = 0xFEE0_0000, 0x51
REQUESTED, MERGED, NO_DESTINATION, DISABLED = 1, 2, 3, 4
STALE = handle_pb2.Handle(id=1, generation=999)


@pytest.fixture
async def context(bench: Any) -> hardware_pb2.Context:
    """Returns a context that does not run."""
    made = await bench.create(coherence_domain="vm")
    assert isinstance(made, hardware_pb2.Context)
    return made


def switched_on(bench: Any, apic: pb.Apic) -> None:
    """Switches an APIC on, as its software would."""
    bench.bus.store64(apic.page_address + 0xF0, 0x1FF)


async def raise_messages(bench: Any, *messages: tuple[int, int], domain: str = "vm", **call: Any) -> list[int]:
    """Raises messages; returns what became of each."""
    interrupts = [pb.Interrupt(message=pb.MessageSignal(address=a, data=d)) for a, d in messages]
    request = pb.RaiseInterruptsRequest(interrupt_domain=domain, interrupts=interrupts)
    return list((await bench.interrupts.RaiseInterrupts(request, **call)).results)


async def test_a_configuration_reads_back(bench: Any, context: Any) -> None:
    """What was configured is what is told; again changes nothing; without a mode it is gone."""
    made = await bench.apic(context, 7, pb.Apic.MODE_XAPIC, end_exits=[0, 0, 0, 1 << 63], timer_frequency_hz=24_000_000)
    assert (made.apic_id, made.interrupt_domain, made.base_gpa) == (7, "vm", ADDRESS)
    assert (made.timer_frequency_hz, list(made.end_exits)) == (24_000_000, [0, 0, 0, 1 << 63])
    switched_on(bench, made)
    assert await raise_messages(bench, (ADDRESS | 7 << 12, VECTOR)) == [REQUESTED]
    again = await bench.interrupts.ConfigureApic(pb.ConfigureApicRequest(apic=made))
    assert list(again.state.requested) == [VECTOR]
    found = await bench.interrupts.GetApic(pb.GetApicRequest(handle=context.handle))
    assert found == again
    none = pb.ConfigureApicRequest(apic=pb.Apic(handle=context.handle, mode=pb.Apic.MODE_NONE))
    assert (await bench.interrupts.ConfigureApic(none)).mode == pb.Apic.MODE_NONE
    await bench.interrupts.ConfigureApic(none)
    call = bench.interrupts.GetApic(pb.GetApicRequest(handle=context.handle))
    assert await reason(call) == ("NOT_FOUND", "APIC_ABSENT")


async def test_a_change_keeps_the_state(bench: Any, context: Any) -> None:
    """Another id, mode and page: what waits still waits, and the id in the page is the new one."""
    made = await bench.apic(context, 7)
    switched_on(bench, made)
    assert await raise_messages(bench, (ADDRESS | 7 << 12, VECTOR)) == [REQUESTED]
    moved = await bench.apic(context, 9, pb.Apic.MODE_XAPIC)
    assert moved.page_address != made.page_address
    assert (list(moved.state.requested), bench.bus.load64(moved.page_address + 0x20)) == ([VECTOR], 9 << 24)
    assert await raise_messages(bench, (ADDRESS | 7 << 12, VECTOR), (ADDRESS | 9 << 12, VECTOR)) == [3, MERGED]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": 0}, {"mode": 9}, {"apic_id": -1}, {"apic_id": 65536}, {"mode": 2, "apic_id": 255},
        {"page_address": 0}, {"page_address": FRAME + 8}, {"descriptor_address": 0}, {"descriptor_address": FRAME + 32},
        {"base_gpa": 12}, {"base_gpa": 1 << 48}, {"timer_frequency_hz": 999}, {"timer_frequency_hz": 10**10 + 1},
        {"timer_frequency_hz": -1}, {"end_exits": [1]}, {"end_exits": [0] * 5}, {"interrupt_domain": "d" * 257},
        {"descriptor_address": 0x20_0040},
    ],
)  # fmt: skip
async def test_a_wrong_configuration_is_refused(bench: Any, context: Any, wrong: dict[str, Any]) -> None:
    """Values out of range, unaligned or missing are INVALID_ARGUMENT, and the context has no APIC then."""
    right = {
        "handle": context.handle, "mode": pb.Apic.MODE_X2APIC, "page_address": 0x20_0000,
        "descriptor_address": 0x20_1000,
    }  # fmt: skip
    call = bench.interrupts.ConfigureApic(pb.ConfigureApicRequest(apic=pb.Apic(**(right | wrong))))
    assert await reason(call) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    call = bench.interrupts.GetApic(pb.GetApicRequest(handle=context.handle))
    assert await reason(call) == ("NOT_FOUND", "APIC_ABSENT")


async def test_pages_lie_in_ram(bench: Any, context: Any) -> None:
    """A page or a descriptor that is not wholly in RAM is OUT_OF_RANGE."""
    for page, descriptor in ((1 << 40, 0x20_0000), (0x20_0000, (64 << 20)), (64 << 20, 0x20_0000)):
        apic = pb.Apic(
            handle=context.handle, mode=pb.Apic.MODE_X2APIC, page_address=page, descriptor_address=descriptor
        )
        call = bench.interrupts.ConfigureApic(pb.ConfigureApicRequest(apic=apic))
        assert await reason(call) == ("OUT_OF_RANGE", "ADDRESS_OUTSIDE_RAM")


async def test_ids_are_unique_within_a_domain(bench: Any, context: Any) -> None:
    """The same id again is ALREADY_EXISTS; in another domain it is free, and so it is after its context is gone."""
    await bench.apic(context, 7)
    other = await bench.create()
    call = bench.apic(other, 7)
    assert await reason(call) == ("ALREADY_EXISTS", "APIC_ID_IN_USE")
    await bench.apic(other, 7, interrupt_domain="other")
    await bench.cpu.DeleteContext(hardware_pb2.DeleteContextRequest(handle=context.handle))
    await bench.apic(other, 7)


async def test_only_idle_contexts_are_configured(bench: Any) -> None:
    """A context that runs is CONTEXT_BUSY; a stale handle is HANDLE_STALE for each call."""
    process = await bench.process("spin")
    made = await bench.apic(process.context, 1)
    await bench.begin(process.context)
    get = hardware_pb2.GetContextRequest(handle=process.context.handle)
    while (await bench.cpu.GetContext(get)).state == hardware_pb2.Context.STATE_IDLE:
        pass
    call = bench.apic(process.context, 2)
    assert await reason(call) == ("FAILED_PRECONDITION", "CONTEXT_BUSY")
    await bench.interrupts.ConfigureApic(pb.ConfigureApicRequest(apic=made))
    await bench.cpu.KickContext(hardware_pb2.KickContextRequest(handle=process.context.handle))
    await bench.stream.read()
    call = bench.interrupts.GetApic(pb.GetApicRequest(handle=STALE))
    assert await reason(call) == ("FAILED_PRECONDITION", "HANDLE_STALE")
    none = pb.Apic(handle=STALE, mode=pb.Apic.MODE_NONE)
    call = bench.interrupts.ConfigureApic(pb.ConfigureApicRequest(apic=none))
    assert await reason(call) == ("FAILED_PRECONDITION", "HANDLE_STALE")


async def test_messages_are_addressed_in_their_domain(bench: Any) -> None:
    """Physical, logical, broadcast; nobody there; switched off; and the order of results is that of the request."""
    contexts = [await bench.create(coherence_domain="vm") for _ in range(3)]
    apics = [await bench.apic(one, number) for number, one in enumerate(contexts)]
    for apic in apics[:2]:
        switched_on(bench, apic)
    to = [ADDRESS | number << 12 for number in range(4)]
    messages = [(to[3], VECTOR), (to[1], VECTOR), (to[1], VECTOR), (to[2], VECTOR), (ADDRESS | 0xFF << 12, 0x61)]
    results = await raise_messages(bench, *messages)
    assert results == [NO_DESTINATION, REQUESTED, MERGED, DISABLED, REQUESTED]
    requested = [list((await bench.state(one)).requested) for one in contexts]
    assert requested == [[0x61], [VECTOR, 0x61], []]


async def test_the_lowest_priority_takes_the_message(bench: Any) -> None:
    """Of all that a message may reach, one takes it: whose task has the lowest priority."""
    contexts = [await bench.create(coherence_domain="vm") for _ in range(3)]
    for number, (one, task) in enumerate(zip(contexts, (0x50, 0x20, 0x40), strict=True)):
        apic = await bench.apic(one, number)
        switched_on(bench, apic)
        bench.bus.store64(apic.page_address + 0x80, task)
    assert await raise_messages(bench, (ADDRESS | 0xFF << 12, 1 << 8 | VECTOR)) == [REQUESTED]
    requested = [list((await bench.state(one)).requested) for one in contexts]
    assert requested == [[], [VECTOR], []]


@pytest.mark.parametrize(
    ("address", "data"),
    [(0xFED0_0000, VECTOR), (ADDRESS, 15), (ADDRESS, 2 << 8 | VECTOR), (ADDRESS, 7 << 8), (ADDRESS, 1 << 20),
     (0x1_FEE0_0000, VECTOR)],
)  # fmt: skip
async def test_a_malformed_interrupt_raises_none(bench: Any, context: Any, address: int, data: int) -> None:
    """One wrong interrupt among many refuses the request, and none of the others is raised."""
    switched_on(bench, await bench.apic(context, 0))
    call = raise_messages(bench, (ADDRESS, VECTOR), (address, data))
    assert await reason(call) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert list((await bench.state(context)).requested) == []


@pytest.mark.parametrize(
    "wrong",
    [{"vector": 15}, {"vector": 256}, {"kind": 2, "vector": 1}, {"kind": 4, "vector": 256}, {"kind": 9, "vector": 32}],
)
async def test_a_malformed_signal_is_refused(bench: Any, context: Any, wrong: dict[str, int]) -> None:
    """Vectors and kinds out of range are INVALID_ARGUMENT; so are no interrupts, too many, and one without a target."""
    signal = pb.ContextSignal(handle=context.handle, **wrong)  # type: ignore[arg-type]
    requests = [[pb.Interrupt(context=signal)], [], [pb.Interrupt()]]
    requests.append([pb.Interrupt(context=pb.ContextSignal(handle=context.handle, vector=32))] * 1025)
    for interrupts in requests:
        call = bench.interrupts.RaiseInterrupts(pb.RaiseInterruptsRequest(interrupts=interrupts))
        assert await reason(call) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_an_unknown_domain(bench: Any, context: Any) -> None:
    """A message in a domain of nobody is refused; interrupts for contexts need none. Domains are their owner's."""
    await bench.apic(context, 0)
    call = raise_messages(bench, (ADDRESS, VECTOR), domain="nobody")
    assert await reason(call) == ("NOT_FOUND", "INTERRUPT_DOMAIN_UNKNOWN")
    async with Owner(bench) as owner:
        call = raise_messages(bench, (ADDRESS, VECTOR), metadata=owner.metadata)
        assert await reason(call) == ("NOT_FOUND", "INTERRUPT_DOMAIN_UNKNOWN")
    assert await bench.signal(context, 32) == DISABLED


async def test_the_coherence_domain_is_the_interrupt_domain_by_default(bench: Any, context: Any) -> None:
    """Without a name contexts of one coherence domain reach one another."""
    made = await bench.apic(context, 0, interrupt_domain="")
    assert made.interrupt_domain == "vm"
    switched_on(bench, made)
    assert await raise_messages(bench, (ADDRESS, VECTOR)) == [REQUESTED]


# ── routes of devices ────────────────────────────────────────────────────────────────────────────────────────────────


async def routes(bench: Any, owner: Owner, *wanted: pb.InterruptRoute, device: str = DMA0) -> None:
    """Sets routes."""
    request = pb.SetInterruptRoutesRequest(device=device, routes=wanted)
    await bench.interrupts.SetInterruptRoutes(request, metadata=owner.metadata)


async def listed(bench: Any, **more: Any) -> list[pb.InterruptRoute]:
    """Returns the routes of the first DMA engine."""
    answer = await bench.interrupts.ListInterruptRoutes(pb.ListInterruptRoutesRequest(device=DMA0, **more))
    return list(answer.routes)


def to_context(context: Any, vector: int = VECTOR, device_vector: int = 0) -> pb.InterruptRoute:
    """Returns a route to a context."""
    signal = pb.ContextSignal(handle=context.handle, kind=pb.ContextSignal.KIND_FIXED, vector=vector)
    return pb.InterruptRoute(device_vector=device_vector, context=signal)


async def test_routes_read_back_and_end_with_their_driver(bench: Any, context: Any) -> None:
    """Routes are listed by vector, are removed by one without a target, and end with the driver's stream."""
    message = pb.RoutedMessage(interrupt_domain="vm", message=pb.MessageSignal(address=ADDRESS, data=VECTOR))
    async with Owner(bench) as owner, Driver(bench, owner):
        await routes(bench, owner, pb.InterruptRoute(device_vector=2, message=message), to_context(context))
        assert [route.device_vector for route in await listed(bench)] == [0, 2]
        assert (await listed(bench))[1].message == message
        assert [route.device_vector for route in await listed(bench, page_size=1)] == [0]
        await routes(bench, owner, pb.InterruptRoute(device_vector=2))
        assert await listed(bench) == [to_context(context)]
    while await listed(bench):
        pass  # until the machine has noticed that the driver is gone


async def test_an_interrupt_of_a_device_takes_its_route(power: Any) -> None:
    """It is posted to the context, or to whom the message reaches; without a route or a target the driver is told."""
    service, bench = await power()
    context = await bench.create(coherence_domain="vm")
    device = service.machine.devices.find(DMA0)
    async with Owner(bench) as owner, Driver(bench, owner) as driver:
        made = await bench.apic(context, 6)
        switched_on(bench, made)
        message = pb.RoutedMessage(interrupt_domain="vm", message=pb.MessageSignal(address=ADDRESS, data=VECTOR))
        await routes(bench, owner, to_context(context), pb.InterruptRoute(device_vector=1, message=message))
        for vector in (0, 0, 1, 2):
            service.machine.devices.raise_vector(device, vector, None)
        told = (await driver.read()).interrupts
        assert (list(told.vectors), told.count) == ([1, 2], 2)  # nobody of this owner has an APIC in the domain `vm`
        assert list((await bench.state(context)).requested) == [VECTOR]
        assert [route.interrupts for route in await listed(bench)] == [2, 0]
        await routes(bench, owner, to_context(context, 0x61))
        service.machine.devices.raise_vector(device, 0, None)
        assert list((await bench.state(context)).requested) == [VECTOR, 0x61]
        await bench.cpu.DeleteContext(hardware_pb2.DeleteContextRequest(handle=context.handle))
        service.machine.devices.raise_vector(device, 0, None)
        assert list((await driver.read()).interrupts.vectors) == [0]
    await service.stop()


async def test_what_is_refused_of_routes(bench: Any, context: Any) -> None:
    """Unknown devices, callers that do not drive, stale handles, vectors that are not there, too many, twice."""
    call = bench.interrupts.ListInterruptRoutes(pb.ListInterruptRoutesRequest(device="hosts/h1/devices/none"))
    assert await reason(call) == ("NOT_FOUND", "DEVICE_UNKNOWN")
    call = bench.interrupts.ListInterruptRoutes(pb.ListInterruptRoutesRequest(device=DMA0, page_token="/"))
    assert await reason(call) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    async with Owner(bench) as owner:
        call = routes(bench, owner, to_context(context))
        assert await reason(call) == ("FAILED_PRECONDITION", "DEVICE_NOT_DRIVEN")
        call = routes(bench, owner, to_context(context), device="hosts/h1/devices/none")
        assert await reason(call) == ("NOT_FOUND", "DEVICE_UNKNOWN")
        async with Driver(bench, owner):
            signal = pb.ContextSignal(handle=STALE, vector=VECTOR)
            call = routes(bench, owner, to_context(context), pb.InterruptRoute(device_vector=1, context=signal))
            assert await reason(call) == ("FAILED_PRECONDITION", "HANDLE_STALE")
            assert await listed(bench) == []
            odd = pb.RoutedMessage(message=pb.MessageSignal(address=1, data=VECTOR))
            for wrong in (
                [], [to_context(context)] * 2, [to_context(context, device_vector=4)],
                [to_context(context, device_vector=-1)], [to_context(context, vector=3)], [to_context(context)] * 257,
                [pb.InterruptRoute(message=odd)],
            ):  # fmt: skip
                call = routes(bench, owner, *wrong)
                assert await reason(call) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
