"""Delivers an interrupt or an exception to a guest through its IDT, as a core does in 64-bit mode. Pure.

    gate (16 bytes at IDT + 16 · vector):   offset 15:0 │ selector │ IST, type, DPL, P │ offset 31:16 │ offset 63:32
    frame on the handler's stack:           SS, RSP, RFLAGS, CS, RIP, and the error code of an exception that has one

The stack is the gate's IST stack, or RSP0 of the TSS when the event comes at ring 3, or the current one. An interrupt
gate disables interrupts. Source: Intel SDM vol. 3, 7.14 (exception handling in 64-bit mode).

Deviation: a fault during the delivery shuts the vCPU down; a core would deliver that fault (or #DF) first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lamina_hypervisor.domain.addresses import Gpa, Gva
from lamina_hypervisor.domain.ept import Ept, TableMemory
from lamina_hypervisor.domain.guest_ram import GuestRam, NeedPage
from lamina_hypervisor.domain.walk import Access, Outcome, Walk, walk
from lamina_kit.paging import ACCESSED, DIRTY, PAGE_MASK, PAGE_SIZE
from lamina_kit.runpage import DIRTY_GPRS, DIRTY_RIP, DIRTY_SEGMENTS, RunPage, Segment

IF, TF, NT, RF, VM = 1 << 9, 1 << 8, 1 << 14, 1 << 16, 1 << 17
GENERAL_PROTECTION, INVALID_OPCODE = 13, 6
_INTERRUPT_GATE, _TRAP_GATE = 0xE, 0xF
_UNUSABLE = 1 << 16


class DeliveryFault(Exception):  # noqa: N818 (a state of the guest, not a defect)
    """The event cannot be delivered; the text says why. The vCPU shuts down."""


@dataclass(frozen=True)
class Event:
    """What is delivered. `error_code` is None for interrupts and for exceptions without one."""

    vector: int
    error_code: int | None = None


@dataclass(frozen=True)
class _Gate:
    handler: Gva
    selector: int
    stack_index: int
    disables: bool


class Injector:
    """Delivers events to the vCPUs of one VM. `NeedPage` leaves everything as it was: ask for the page, try again."""

    def __init__(self, memory: TableMemory, ept: Ept, ram: GuestRam) -> None:
        self._memory = memory
        self._ept = ept
        self._ram = ram

    def deliver(self, page: RunPage, event: Event) -> None:
        """Makes the vCPU of `page` enter its handler for `event`."""
        gate = self._gate(page, event.vector)
        descriptor = self._code_descriptor(page, gate.selector)
        stack = self._stack(page, gate)
        words = [page.segment("ss").selector, page.rsp, page.rflags, page.segment("cs").selector, page.rip]
        if event.error_code is not None:
            words.append(event.error_code)
        top = stack - 8 * len(words)
        self._write(page, Gva(top), struct.pack(f"<{len(words)}Q", *reversed(words)))
        self._enter(page, gate, descriptor, top)

    def _enter(self, page: RunPage, gate: _Gate, descriptor: Segment, top: int) -> None:
        page.rsp = top
        page.rip = gate.handler
        page.rflags = page.rflags & ~(TF | NT | RF | VM | (IF if gate.disables else 0))
        page.set_segment("cs", descriptor)
        if page.cpl:
            page.set_segment("ss", Segment(0, 0, 0, _UNUSABLE))
            page.cpl = 0
        page.dirty |= DIRTY_GPRS | DIRTY_RIP | DIRTY_SEGMENTS

    def _gate(self, page: RunPage, vector: int) -> _Gate:
        if vector * 16 + 15 > page.idtr_limit:
            raise DeliveryFault(f"vector {vector:#x} lies beyond the IDT's limit {page.idtr_limit:#x}")
        low, high = struct.unpack("<QQ", self._read(page, Gva(page.idtr_base + vector * 16), 16))
        kind = low >> 40 & 0xF
        if not low >> 47 & 1 or kind not in (_INTERRUPT_GATE, _TRAP_GATE):
            raise DeliveryFault(f"the IDT has no gate for vector {vector:#x}")
        handler = (low & 0xFFFF) | (low >> 48 & 0xFFFF) << 16 | (high & 0xFFFF_FFFF) << 32
        return _Gate(Gva(handler), low >> 16 & 0xFFFC, low >> 32 & 7, kind == _INTERRUPT_GATE)

    def _code_descriptor(self, page: RunPage, selector: int) -> Segment:
        if selector == 0 or selector + 7 > page.gdtr_limit:
            raise DeliveryFault(f"the gate's code selector {selector:#x} is not in the GDT")
        raw = int.from_bytes(self._read(page, Gva(page.gdtr_base + selector), 8), "little")
        attributes = raw >> 40 & 0xF0FF
        if attributes & 0x2098 != 0x2098 or attributes & 0x60:
            raise DeliveryFault(f"the gate's code selector {selector:#x} is not 64-bit ring 0 code")
        return Segment(selector, 0, 0xFFFF_FFFF, attributes | 1)

    def _stack(self, page: RunPage, gate: _Gate) -> int:
        task = page.segment("tr")
        if gate.stack_index:
            offset = 0x24 + 8 * (gate.stack_index - 1)
        elif page.cpl:
            offset = 4
        else:
            return int(page.rsp) & ~15
        if offset + 7 > task.limit:
            raise DeliveryFault("the task state segment holds no stack for the handler")
        return int.from_bytes(self._read(page, Gva(task.base + offset), 8), "little") & ~15

    def _read(self, page: RunPage, gva: Gva, n: int) -> bytes:
        parts = []
        while n > 0:
            size = min(n, PAGE_SIZE - (gva & PAGE_MASK))
            parts.append(self._ram.read(self._locate(page, gva, write=False), size))
            gva, n = Gva(gva + size), n - size
        return b"".join(parts)

    def _write(self, page: RunPage, gva: Gva, data: bytes) -> None:
        spans = []
        while data:
            size = min(len(data), PAGE_SIZE - (gva & PAGE_MASK))
            spans.append((self._locate(page, gva, write=True), data[:size]))
            gva, data = Gva(gva + size), data[size:]
        for gpa, part in spans:
            self._ram.write(gpa, part)

    def _locate(self, page: RunPage, gva: Gva, *, write: bool) -> Gpa:
        """Returns the guest physical address, with A (and D) set in the guest's tables."""
        found = walk(self._memory, self._ept, page.cr3, gva, Access(write=write))
        if found.outcome is Outcome.EPT_VIOLATION and found.gpa is not None:
            raise NeedPage(Gpa(found.gpa & ~PAGE_MASK), write)
        if found.outcome is not Outcome.TRANSLATED or found.gpa is None:
            raise DeliveryFault(f"address {gva:#x} is not mapped in the guest ({found.outcome.value})")
        self._touch(found, write)
        return found.gpa

    def _touch(self, found: Walk, write: bool) -> None:
        last = len(found.visits) - 1
        for number, visit in enumerate(found.visits):
            if visit.entry is not None:
                bits = ACCESSED | (DIRTY if write and number == last else 0)
                self._ram.set_bits(visit.entry_gpa, visit.entry, bits)
