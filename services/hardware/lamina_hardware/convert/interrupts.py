"""Interrupts between contract and domain: checks what callers send, formats what they get."""

from __future__ import annotations

from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import interrupts_pb2 as pb

from lamina_hardware.devices.interrupt_routes import Route, Target, ToContext, ToDomain
from lamina_hardware.domain.apic import page as at
from lamina_hardware.domain.apic.local_apic import Mode
from lamina_hardware.domain.apic.messages import parse, problem
from lamina_hardware.domain.apic.page import DESCRIPTOR_BYTES, PAGE_BYTES, listed
from lamina_hardware.domain.contexts.context import Context, Handle
from lamina_hardware.io.interrupt_controller import ApicWish, Configured, Kind
from lamina_kit.checks import Checks
from lamina_kit.errors import OutOfRange

MAX_INTERRUPTS = 1024
_MAX_DOMAIN = 256
_MAX_ID = {pb.Apic.MODE_XAPIC: 254, pb.Apic.MODE_X2APIC: 65535}
_MODES = {pb.Apic.MODE_XAPIC: Mode.XAPIC, pb.Apic.MODE_X2APIC: Mode.X2APIC}
_NUMBERS = {mode: number for number, mode in _MODES.items()}
_DEFAULT_BASE, _GPA_END = 0xFEE0_0000, 1 << 48
_DEFAULT_HZ, _LEAST_HZ, _MOST_HZ = 1_000_000_000, 1_000, 10_000_000_000
_END_WORDS, _LEAST_VECTOR = 4, 16
_MAX_ROUTES = 256
_KINDS = {
    Kind.FIXED: pb.ContextSignal.KIND_FIXED,
    Kind.NMI: pb.ContextSignal.KIND_NMI,
    Kind.INIT: pb.ContextSignal.KIND_INIT,
    Kind.STARTUP: pb.ContextSignal.KIND_STARTUP,
    Kind.MACHINE_CHECK: pb.ContextSignal.KIND_MACHINE_CHECK,
}


def domain_key(owner: str, name: str) -> str:
    """Returns the key of an interrupt domain: its name is the owner's own, as that of a coherence domain is."""
    return f"{owner}:{name}"


def apic_wish(message: pb.Apic, context: Context, ram_bytes: int) -> ApicWish | None:
    """Returns what a caller wants of an APIC; None for no APIC.

    Raises `InvalidArgument` that names each wrong field, or `OutOfRange` `ADDRESS_OUTSIDE_RAM`.
    """
    with Checks() as check:
        check.one_of("apic.mode", message.mode, (pb.Apic.MODE_NONE, *_MODES))
    if message.mode == pb.Apic.MODE_NONE:
        return None
    with Checks() as check:
        check.range("apic.apic_id", message.apic_id, 0, _MAX_ID[message.mode])
        check.max_bytes("apic.interrupt_domain", message.interrupt_domain, _MAX_DOMAIN)
        check.that(bool(message.page_address), "apic.page_address", "is 0")
        check.aligned("apic.page_address", message.page_address, PAGE_BYTES)
        check.that(bool(message.descriptor_address), "apic.descriptor_address", "is 0")
        check.aligned("apic.descriptor_address", message.descriptor_address, DESCRIPTOR_BYTES)
        check.aligned("apic.base_gpa", message.base_gpa, PAGE_BYTES)
        check.range("apic.base_gpa", message.base_gpa, 0, _GPA_END - PAGE_BYTES)
        if message.timer_frequency_hz:
            check.range("apic.timer_frequency_hz", message.timer_frequency_hz, _LEAST_HZ, _MOST_HZ)
        check.that(len(message.end_exits) in (0, _END_WORDS), "apic.end_exits", "has neither 0 nor 4 words")
        alone = message.starts_itself and not context.eptp
        check.that(not alone, "apic.starts_itself", "is set, but the context has no second stage")
        own = message.page_address <= message.descriptor_address < message.page_address + PAGE_BYTES
        check.that(not own, "apic.descriptor_address", "lies in the virtual APIC page")
    _bound(message.page_address, PAGE_BYTES, ram_bytes)
    _bound(message.descriptor_address, DESCRIPTOR_BYTES, ram_bytes)
    named = domain_key(context.owner, message.interrupt_domain)
    return ApicWish(
        mode=_MODES[message.mode],
        apic_id=message.apic_id,
        domain=named if message.interrupt_domain else context.domain,
        page_address=message.page_address,
        descriptor_address=message.descriptor_address,
        base_gpa=message.base_gpa or _DEFAULT_BASE,
        timer_frequency_hz=message.timer_frequency_hz or _DEFAULT_HZ,
        starts_itself=message.starts_itself,
        end_exits=sum(word << (64 * index) for index, word in enumerate(message.end_exits)),
    )


def apic(found: Configured, now: int) -> pb.Apic:
    """Returns a local APIC as a message."""
    wish, local = found.wish, found.apic
    deadline = None if local.timer_is_masked else local.timer.deadline(now)
    counts = local.counts
    return pb.Apic(
        handle=handle_pb2.Handle(id=found.context.handle.id, generation=found.context.handle.generation),
        mode=_NUMBERS[wish.mode],
        apic_id=wish.apic_id,
        interrupt_domain=wish.domain.partition(":")[2],
        page_address=wish.page_address,
        descriptor_address=wish.descriptor_address,
        base_gpa=wish.base_gpa,
        timer_frequency_hz=wish.timer_frequency_hz,
        starts_itself=wish.starts_itself,
        end_exits=[wish.end_exits >> (64 * n) & (1 << 64) - 1 for n in range(_END_WORDS)] if wish.end_exits else [],
        state=pb.Apic.State(
            requested=listed(local.page.vectors(at.IRR) | local.posted.vectors()),
            in_service=listed(local.page.vectors(at.ISR)),
            task_priority=local.page.get(at.TPR) & 0xFF,
            timer_vector=local.page.get(at.LVT_TIMER) & 0xFF,
            timer_deadline_ns=deadline,
            delivered=counts.delivered,
            timer_interrupts=counts.timer_interrupts,
            ipis_sent=counts.ipis_sent,
        ),
    )


def check_interrupts(request: pb.RaiseInterruptsRequest) -> None:
    """Raises `InvalidArgument` unless every interrupt of a request is well formed."""
    with Checks() as check:
        check.that(
            1 <= len(request.interrupts) <= MAX_INTERRUPTS, "interrupts", f"has not 1 to {MAX_INTERRUPTS} entries"
        )
    with Checks() as check:
        check.max_bytes("interrupt_domain", request.interrupt_domain, _MAX_DOMAIN)
        for index, one in enumerate(request.interrupts):
            where = f"interrupts[{index}]"
            which = one.WhichOneof("destination")
            if which == "message":
                wrong = problem(one.message.address, one.message.data)
                check.that(not wrong, f"{where}.message", wrong)
            elif which == "context":
                check_signal(check, f"{where}.context", one.context)
            else:
                check.that(False, where, "names no destination")


def check_signal(check: Checks, where: str, signal: pb.ContextSignal) -> None:
    """Notes what is wrong with an interrupt for one context."""
    known = (0, *(int(one) for one in Kind))
    check.one_of(f"{where}.kind", signal.kind, known)
    if signal.kind not in known:
        return
    bounds = {Kind.FIXED: (_LEAST_VECTOR, 255), Kind.STARTUP: (0, 255)}.get(kind(signal.kind), (0, 0))
    check.range(f"{where}.vector", signal.vector, *bounds)


def _bound(address: int, size: int, ram_bytes: int) -> None:
    if address + size > ram_bytes:
        raise OutOfRange(
            f"{size} bytes at {address:#x} do not lie within the RAM of {ram_bytes:#x} bytes.",
            reason="ADDRESS_OUTSIDE_RAM",
            next_step="Check the address against memory_bytes of GetHost.",
            address=f"{address:#x}",
        )


def routes(request: pb.SetInterruptRoutesRequest, vectors: int, owner: str) -> list[tuple[int, Target | None]]:
    """Returns vectors and where they are to go; raises `InvalidArgument` that names each wrong field."""
    with Checks() as check:
        check.that(1 <= len(request.routes) <= _MAX_ROUTES, "routes", f"has not 1 to {_MAX_ROUTES} entries")
    seen: dict[int, None] = {}
    with Checks() as check:
        for index, one in enumerate(request.routes):
            where = f"routes[{index}]"
            inside = 0 <= one.device_vector < vectors
            check.that(inside, f"{where}.device_vector", f"is {one.device_vector}; the device has {vectors} vectors")
            check.that(one.device_vector not in seen, f"{where}.device_vector", "is in the list twice")
            seen[one.device_vector] = None
            which = one.WhichOneof("target")
            if which == "context":
                check_signal(check, f"{where}.context", one.context)
            elif which == "message":
                check.max_bytes(f"{where}.message.interrupt_domain", one.message.interrupt_domain, _MAX_DOMAIN)
                wrong = problem(one.message.message.address, one.message.message.data)
                check.that(not wrong, f"{where}.message.message", wrong)
    return [(one.device_vector, _target(one, owner)) for one in request.routes]


def _target(one: pb.InterruptRoute, owner: str) -> Target | None:
    which = one.WhichOneof("target")
    if which == "context":
        signal = one.context
        return ToContext(Handle(signal.handle.id, signal.handle.generation), kind(signal.kind), signal.vector)
    if which == "message":
        name, message = one.message.interrupt_domain, one.message.message
        parsed = parse(message.address, message.data)
        return ToDomain(domain_key(owner, name), name, parsed, message.address, message.data)
    return None


def route(vector: int, found: Route) -> pb.InterruptRoute:
    """Returns a route as a message."""
    target = found.target
    if isinstance(target, ToContext):
        handle = handle_pb2.Handle(id=target.handle.id, generation=target.handle.generation)
        signal = pb.ContextSignal(handle=handle, kind=_KINDS[target.kind], vector=target.vector)
        return pb.InterruptRoute(device_vector=vector, context=signal, interrupts=found.interrupts)
    message = pb.MessageSignal(address=target.address, data=target.data)
    routed = pb.RoutedMessage(interrupt_domain=target.name, message=message)
    return pb.InterruptRoute(device_vector=vector, message=routed, interrupts=found.interrupts)


def kind(number: int) -> Kind:
    """Returns the kind of an interrupt; unspecified means fixed."""
    return Kind(number or Kind.FIXED)
