"""`lamina hardware registers` and `controls`: the state of one context, and what it exits for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word
from lamina_kit.errors import NotFound

if TYPE_CHECKING:
    from lamina.common.v1.handle_pb2 import Handle
    from lamina.hardware.v1.hardware_pb2_grpc import CpuStub

GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    for name, text, function in (
        ("registers", "show the registers of a context that is idle", registers),
        ("controls", "show what a context exits for", controls),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("context", help="context as `hardware contexts` has it, for example c-1")
        command(verb, function, lists=True)


def _cpu(client: Client) -> CpuStub:
    from lamina.hardware.v1 import hardware_pb2_grpc

    return client.stub("hardware", hardware_pb2_grpc.CpuStub)


async def find(client: Client, name: str) -> Handle:
    """Returns the handle of a context by its name or the last part of it."""
    from lamina.hardware.v1 import hardware_pb2

    listed = await collect(_cpu(client).ListContexts, hardware_pb2.ListContextsRequest(), "contexts")
    for context in listed:
        if name in (context.name, last(context.name)):
            found: Handle = context.handle
            return found
    raise NotFound(
        f"There is no context {name}.", reason="CONTEXT_UNKNOWN", next_step="List them: lamina hardware contexts."
    )


async def registers(client: Client, args: argparse.Namespace) -> None:
    """Shows all registers of a context, in the order of the contract."""
    from lamina.hardware.v1 import registers_pb2

    request = registers_pb2.ReadRegistersRequest(handle=await find(client, args.context))
    found = await _cpu(client).ReadRegisters(request)
    if args.output == "json":
        printing.as_json(found)
        return
    printing.table(("REGISTER", "VALUE"), list(_rows(found.registers)))


def _rows(found: Any) -> Iterator[tuple[str, str]]:
    from lamina.hardware.v1 import registers_pb2

    flow = found.flow
    yield from ((name, f"{value:#018x}") for name, value in zip(GENERAL, found.general, strict=False))
    yield "rip", f"{flow.rip:#018x}"
    yield "rflags", f"{flow.rflags:#x}"
    yield "cpl", str(flow.cpl)
    held = [text for text, on in (("interrupts shadowed", flow.shadowed), ("NMIs blocked", flow.nmi_blocked)) if on]
    yield "activity", ", ".join((word(registers_pb2.FlowState.Activity, flow.activity), *held))
    for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "xcr0"):
        yield name, f"{getattr(found.control, name):#x}"
    for name, entry in zip(SEGMENTS, found.segments, strict=False):
        yield (
            name,
            f"{entry.selector:#06x} base {entry.base:#x} limit {entry.limit:#x} attributes {entry.attributes:#x}",
        )
    for name, table in (("gdtr", found.gdtr), ("idtr", found.idtr)):
        yield name, f"base {table.base:#x} limit {table.limit:#x}"
    for number, address in enumerate(found.debug.addresses):
        yield f"dr{number}", f"{address:#x}"
    yield "dr6", f"{found.debug.dr6:#x}"
    yield "dr7", f"{found.debug.dr7:#x}"
    yield from ((f"msr {entry.number:#x}", f"{entry.value:#x}") for entry in found.msrs)
    yield "tsc", f"{found.tsc:,}"
    if found.HasField("event"):
        kind = word(registers_pb2.PendingEvent.Kind, found.event.kind)
        code = f" error code {found.event.error_code:#x}" if found.event.HasField("error_code") else ""
        yield "event", f"{kind} {found.event.vector:#x}{code}"


async def controls(client: Client, args: argparse.Namespace) -> None:
    """Shows what a context exits for; what it does not exit for is left out."""
    from lamina.hardware.v1 import exit_controls_pb2

    request = exit_controls_pb2.GetExitControlsRequest(handle=await find(client, args.context))
    found = await _cpu(client).GetExitControls(request)
    if args.output == "json":
        printing.as_json(found)
        return
    printing.table(("CONTROL", "VALUE"), [(name, text) for name, text in _controls(found) if text])


def _controls(found: Any) -> Iterator[tuple[str, str]]:
    """Yields all controls; one that is off has an empty text."""
    from lamina.hardware.v1 import exit_controls_pb2

    trapped = exit_controls_pb2.TrappedInstruction
    yield "exceptions", _exceptions(found.exceptions)
    if found.page_fault_mask:
        yield "page faults", f"error code & {found.page_fault_mask:#x} = {found.page_fault_match:#x}"
    yield "instructions", " ".join(word(trapped, number) for number in found.instructions)
    yield "ports", "all" if found.ports.all else _ranges((entry.first, entry.count) for entry in found.ports.ranges)
    for name, ranges in (("MSR reads", found.msrs.reads), ("MSR writes", found.msrs.writes)):
        yield name, "all" if found.msrs.all else _ranges((entry.first, entry.count) for entry in ranges)
    yield "MSR shadows", " ".join(f"{entry.number:#x}={entry.value:#x}" for entry in found.msrs.shadows)
    yield from _control_registers(found.control_registers)
    for name in ("debug_registers", "external_interrupts", "nmis", "interrupt_window", "nmi_window"):
        yield name.replace("_", " "), "yes" if getattr(found, name) else ""
    for name in ("preemption_timer_ns", "pause_gap_ns", "pause_window_ns"):
        value = getattr(found, name)
        yield name.removesuffix("_ns").replace("_", " "), f"{value:,} ns" if value else ""
    yield "device ranges", _ranges((entry.gpa, entry.size_bytes) for entry in found.device_ranges)
    for entry in found.posted_writes:
        yield f"posted write {entry.slot}", _posted(entry)


def _control_registers(found: Any) -> Iterator[tuple[str, str]]:
    for name in ("cr0", "cr4"):
        mask, shadow = getattr(found, f"{name}_mask"), getattr(found, f"{name}_shadow")
        yield name.upper(), f"mask {mask:#x} shadow {shadow:#x}" if mask else ""
    for name in ("cr3", "cr8"):
        yield name.upper(), " ".join(kind for kind in ("reads", "writes") if getattr(found, f"{name}_{kind}"))
    yield "CR3 targets", " ".join(f"{target:#x}" for target in found.cr3_targets)


def _exceptions(bits: int) -> str:
    vectors = [number for number in range(32) if bits >> number & 1]
    return "all" if len(vectors) == 32 else " ".join(map(str, vectors))


def _ranges(pairs: Iterator[tuple[int, int]]) -> str:
    texts: Sequence[str] = [
        f"{first:#x}-{first + count - 1:#x}" if count > 1 else f"{first:#x}" for first, count in pairs
    ]
    return " ".join(texts)


def _posted(entry: Any) -> str:
    place = f"port {entry.port:#x}" if entry.WhichOneof("place") == "port" else f"address {entry.gpa:#x}"
    size = f" {entry.size_bytes} bytes" if entry.size_bytes else ""
    value = f" value {entry.value:#x}" if entry.HasField("value") else ""
    return place + size + value
