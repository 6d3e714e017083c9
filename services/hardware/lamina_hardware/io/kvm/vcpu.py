"""One vCPU of KVM, and its registers as a run page has them.

Each context has a vCPU of its own while it has one at all, so a core that runs it again loads only what its holder
changed. General registers, segments, control registers and pending events go through `kvm_run` with the run itself;
FPU, model-specific and debug registers cost a call each, and come to the page after an exit that is no access to a
device, or when `fetch` is called.

Source: Linux, Documentation/virt/kvm/api.rst, KVM_RUN, KVM_CAP_SYNC_REGS, KVM_SET_SIGNAL_MASK.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import struct

from lamina_hardware.engines.interface import CoreRun
from lamina_hardware.io.kvm import abi, cpuid
from lamina_hardware.io.kvm.lane import FastLane
from lamina_hardware.io.kvm.unfinished import Items, Kept
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import RunPage, Segment
from lamina_kit.errors import FailedPrecondition

SIGNAL = signal.SIGRTMIN + 3
"""What takes a thread out of KVM_RUN: blocked in every thread that runs vCPUs, let through by the kernel within."""

_GPRS = struct.Struct("<16Q")
_PAIR = struct.Struct("<2Q")
_SEGMENT = struct.Struct("<QIHBBBBBBBBBx")
_DESCRIPTOR = struct.Struct("<QHxxxxxx")
_CONTROL = struct.Struct("<7Q")
_ORDER = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
_UNUSABLE = 1 << 16
_TABLES_AT, _CONTROL_AT = 192, 224
_CR2_AT = _CONTROL_AT + 8
_SS_AT = 24 * 5
_DEBUG_OFFSET, _DEBUG_BYTES = run_page.STATE_OFFSET + 0x10, 48
_MSRS = (
    (0xC000_0081, run_page.CONTROL_OFFSET + 0x30), (0xC000_0082, run_page.CONTROL_OFFSET + 0x38),
    (0xC000_0084, run_page.CONTROL_OFFSET + 0x40), (0xC000_0102, run_page.CONTROL_OFFSET + 0x48),
    (0xC000_0103, run_page.TSC_OFFSET + 0x10), (0x174, run_page.ENGINE_OFFSET), (0x175, run_page.ENGINE_OFFSET + 8),
    (0x176, run_page.ENGINE_OFFSET + 0x10), (0xC000_0083, run_page.ENGINE_OFFSET + 0x18),
    (0x277, run_page.ENGINE_OFFSET + 0x20),
)  # fmt: skip
"""Registers that the page holds: number, and where. KVM's own of these are never passed on."""
_XSTATE_AT = 512
_EVENTS_VALID = 1 | 4  # NMI pending and the shadow are meant
_LOADED_BY_SREGS = run_page.DIRTY_CONTROL | run_page.DIRTY_SEGMENTS
_RIP_WORD = (abi.RUN_REGS >> 3) + 16
_FLAT = 0xFFFF_FFFF
_IF = 1 << 9
_DOUBLE_FAULT, _PAGE_FAULT = 8, 14


class Vcpu:
    """A vCPU of one VM. Used by one thread at a time."""

    def __init__(self, vm: int, number: int, run_bytes: int) -> None:
        self.number = number
        self.file = fcntl.ioctl(vm, abi.CREATE_VCPU, number)
        self.run = mmap.mmap(self.file, run_bytes, mmap.MAP_SHARED)
        self.bytes = memoryview(self.run)
        self.words = self.bytes[:2048].cast("Q")
        self._reason = self.bytes[: abi.RUN_BODY].cast("I")
        self.words[abi.RUN_VALID >> 3] = abi.SYNC_ALL
        fcntl.ioctl(self.file, abi.SET_SIGNAL_MASK, struct.pack("<IQ", 8, 0))
        self.cpuid: bytes | None = None
        self.entered = False
        self.is_newer = False
        """Whether the vCPU ran since its registers were stored; until it does, `kvm_run` has what it is to load."""
        self.complete = False
        """Whether the page may be loaded group by group: everything in the vCPU is this context's."""
        self.stale = 0
        """Groups that the page has right and the vCPU does not."""
        self.behind = False
        """Whether FPU, model-specific and debug registers of the page are older than the vCPU's."""
        self.unfinished = False
        """Whether KVM waits for the answer to an access."""
        self.kept: Kept | None = None
        """An access that the EPT refused, which the next run makes."""
        self.items: Items | None = None
        """Items of an INS that are still to be answered."""
        self.asks = False
        """Whether the holder's answer to an INS comes with the next run."""
        self.answer: int | None = None
        """That answer, until KVM asks for it."""
        self.out_is_behind = False
        """Whether RIP is behind OUT when KVM leaves with it, as it is where KVM emulates; learnt at the first."""
        self.lane: FastLane | None = None
        """The block of addresses by which `fast_round.step` runs it, once it had a run page."""
        self.work: CoreRun | None = None
        self.turns = self.thread = 0
        """What it runs, or ran last; how many runs it had that `fast_round.step` did not make; who ran the last."""
        self.plain_out = -1
        """RIP behind the last OUT with RCX 0 that was no string."""
        self.settled_cr2 = 0
        """CR2 without what a page fault that is still to be delivered put there."""
        self._sregs = b""
        self._events = b""
        self.debug = b""
        """Debug registers of the page as they are loaded."""

    @property
    def is_plain(self) -> bool:
        """Whether all of its context is in it, no access is under way, and the page has what costs no call."""
        under_way = self.unfinished or self.kept or self.items or self.asks or self.is_newer
        return self.complete and self.behind and not under_way and self.answer is None

    @property
    def turn(self) -> int:
        """How many runs it had: another number is another run."""
        return self.turns + (0 if self.lane is None else self.lane.turns)

    def disarm(self) -> None:
        """Lets its next run be none of `fast_round.step`."""
        if self.lane is not None:
            self.lane.disarm()

    @property
    def rip(self) -> int:
        """RIP as the last exit left it."""
        return self.words[_RIP_WORD]

    def registers(self) -> tuple[int, ...]:
        """Returns general registers, RIP and RFLAGS as the last exit left them, in KVM's order."""
        return abi.REGS.unpack_from(self.bytes, abi.RUN_REGS)

    def put_registers(self, values: tuple[int, ...]) -> None:
        """Makes these the registers that go to the page; the next entry loads them from there."""
        abi.REGS.pack_into(self.bytes, abi.RUN_REGS, *values)
        self.stale |= run_page.DIRTY_GPRS

    def put_cr2(self, value: int) -> None:
        """Makes this CR2; the next entry loads it."""
        self.words[(abi.RUN_SREGS + _CR2_AT) >> 3] = value
        self.words[abi.RUN_DIRTY >> 3] |= abi.SYNC_SREGS

    def sregs_word(self, offset: int) -> int:
        """Returns a word of the segments and control registers that the last exit left."""
        return self.words[(abi.RUN_SREGS + offset) >> 3]

    def sregs_byte(self, offset: int) -> int:
        """Returns a byte of them."""
        return self.bytes[abi.RUN_SREGS + offset]

    def close(self) -> None:
        """Closes the vCPU; the kernel frees it with its VM."""
        self.disarm()
        self.words.release()
        self._reason.release()
        self.bytes.release()
        self.run.close()
        os.close(self.file)

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────

    def enter(self) -> int:
        """Runs until the next exit; returns 0, or the error's number (EINTR: someone wants it to stop)."""
        try:
            fcntl.ioctl(self.file, abi.RUN, 0)
        except OSError as error:
            return error.errno or -1
        finally:
            self.entered = self.is_newer = True
        return 0

    @property
    def reason(self) -> int:
        """Why the last run ended."""
        return self._reason[abi.RUN_REASON >> 2]

    def finish(self) -> None:
        """Has KVM finish the instruction whose access it waits to have answered, and enter no further.

        What else the instruction reads or writes outside memory is answered by what `kvm_run` holds.
        """
        self.bytes[abi.RUN_IMMEDIATE] = 1
        for _ in range(abi.MOST_ACCESSES):
            if self.enter():
                break
        self.bytes[abi.RUN_IMMEDIATE] = 0
        self.unfinished = False

    # ── page → vCPU ──────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, page: RunPage) -> None:
        """Loads what the holder changed, or everything.

        Values that KVM refuses are an `OSError` of the call, or `FailedPrecondition` `KVM_REGISTER_REFUSED`.
        """
        dirty = page.dirty
        if not self.complete:
            if self.unfinished:
                self.finish()
            self.kept = self.items = self.answer = None
            self.asks = False
            dirty = run_page.DIRTY_ALL
            self._sregs = self._events = self.debug = b""
            self.words[abi.RUN_DIRTY >> 3] = 0
            self.bytes[abi.RUN_EVENTS : abi.RUN_EVENTS + abi.EVENTS_BYTES] = bytes(abi.EVENTS_BYTES)
        dirty |= self.stale
        page.dirty = self.stale = 0
        if dirty & run_page.DIRTY_CPUID or self.cpuid is None:
            self._load_cpuid(page)
        if dirty & (run_page.DIRTY_GPRS | run_page.DIRTY_RIP):
            rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, *high = _GPRS.unpack_from(page.view, run_page.GPR_OFFSET)
            rflags = page.rflags | 2
            abi.REGS.pack_into(
                self.bytes, abi.RUN_REGS, rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, *high, page.rip, rflags
            )
            self.words[abi.RUN_DIRTY >> 3] |= abi.SYNC_REGS
        if dirty & (_LOADED_BY_SREGS | run_page.DIRTY_RIP):
            self._load_sregs(page, dirty)
        if dirty & run_page.DIRTY_MSRS:
            self._load_msrs(page)
        if dirty & run_page.DIRTY_FPU:
            self._load_fpu(page)
        if (debug := bytes(page.view[_DEBUG_OFFSET : _DEBUG_OFFSET + _DEBUG_BYTES])) != self.debug:
            self._load_debug(debug)
        self.complete = True

    def _load_cpuid(self, page: RunPage) -> None:
        answers = bytes(cpuid.table(page.cpuid()))
        if answers != self.cpuid:
            fcntl.ioctl(self.file, abi.SET_CPUID2, bytearray(answers), True)
            self.cpuid = answers

    def takes(self, page: RunPage) -> bool:
        """Whether this vCPU can answer CPUID as the page says: a vCPU that ran keeps its answers."""
        return not self.entered or self.cpuid is None or bytes(cpuid.table(page.cpuid())) == self.cpuid

    def _load_sregs(self, page: RunPage, dirty: int) -> None:
        level = page.cpl & 3
        set_level = not page.segment("cs").attributes or (
            not dirty & run_page.DIRTY_SEGMENTS and self._sregs and self._sregs[_SS_AT + 16] != level
        )
        if set_level:
            code, data = (0x33, 0x2B) if level == 3 else (0x08, 0x10)
            page.set_segment("cs", Segment(code, 0, _FLAT, 0xA09B | level << 5))
            page.set_segment("ss", Segment(data, 0, _FLAT, 0xC093 | level << 5))
        packed = bytearray(abi.SREGS_BYTES)
        for n, name in enumerate(_ORDER):
            segment = page.segment(name)
            _pack_segment(packed, 24 * n, segment, level if name == "ss" else None)
        _DESCRIPTOR.pack_into(packed, _TABLES_AT, page.gdtr_base, page.gdtr_limit & 0xFFFF)
        _DESCRIPTOR.pack_into(packed, _TABLES_AT + 16, page.idtr_base, page.idtr_limit & 0xFFFF)
        _CONTROL.pack_into(packed, _CONTROL_AT, page.cr0, page.cr2, page.cr3, page.cr4, page.cr8, page.efer, 0)
        self.words[abi.RUN_CR8 >> 3] = page.cr8
        self.settled_cr2 = page.cr2
        if packed != self._sregs:
            self.bytes[abi.RUN_SREGS : abi.RUN_SREGS + abi.SREGS_BYTES] = packed
            self.words[abi.RUN_DIRTY >> 3] |= abi.SYNC_SREGS
            self._sregs = bytes(packed)

    def _load_msrs(self, page: RunPage) -> None:
        packed = bytearray(struct.pack("<II", len(_MSRS), 0))
        for number, place in _MSRS:
            packed += struct.pack("<IIQ", number, 0, page.words[place >> 3])
        done = fcntl.ioctl(self.file, abi.SET_MSRS, packed, True)
        if done != len(_MSRS):
            raise FailedPrecondition(
                f"The model-specific register {_MSRS[done][0]:#x} takes no such value.",
                reason="KVM_REGISTER_REFUSED",
                next_step="Give the context's run page a value that the processor has.",
            )

    def _load_fpu(self, page: RunPage) -> None:
        area = bytearray(4096)
        fcntl.ioctl(self.file, abi.GET_XSAVE, area, True)
        area[: run_page.FXSAVE_BYTES] = page.fxsave
        area[464:512] = bytes(48)
        struct.pack_into("<Q", area, _XSTATE_AT, struct.unpack_from("<Q", area, _XSTATE_AT)[0] | 3)
        fcntl.ioctl(self.file, abi.SET_XSAVE, area, True)

    def _load_debug(self, debug: bytes) -> None:
        fcntl.ioctl(self.file, abi.SET_DEBUGREGS, debug.ljust(128, b"\0"))
        self.debug = debug

    # ── vCPU → page ──────────────────────────────────────────────────────────────────────────────────────────────

    def store(self, page: RunPage, *, everything: bool) -> None:
        """Writes to the page what `kvm_run` has, and with `everything` also what costs a call."""
        rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, *high = abi.REGS.unpack_from(self.bytes, abi.RUN_REGS)
        rip, rflags = high[8], high[9]
        _GPRS.pack_into(page.view, run_page.GPR_OFFSET, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, *high[:8])
        _PAIR.pack_into(page.view, run_page.RIP_OFFSET, rip, rflags)
        self.store_others(page)
        if everything:
            self.fetch(page)

    def store_others(self, page: RunPage) -> None:
        """Writes to the page which segments, control registers and events `kvm_run` has that the page has not."""
        self.is_newer = False
        if not self._faults:
            self.settled_cr2 = self.sregs_word(_CR2_AT)
        if self.run[abi.RUN_SREGS : abi.RUN_SREGS + abi.SREGS_BYTES] != self._sregs:
            self._store_sregs(page)
        if self.run[abi.RUN_EVENTS : abi.RUN_EVENTS + abi.EVENTS_BYTES] != self._events:
            self._store_events(page)
        self.behind = True

    def fetch(self, page: RunPage) -> None:
        """Writes FPU, model-specific and debug registers to the page, unless it has them."""
        if not self.behind:
            return
        self.behind = False
        area = bytearray(4096)
        fcntl.ioctl(self.file, abi.GET_XSAVE, area, True)
        page.fxsave[:] = area[: run_page.FXSAVE_BYTES]
        packed = bytearray(struct.pack("<II", len(_MSRS), 0))
        for number, _ in _MSRS:
            packed += struct.pack("<IIQ", number, 0, 0)
        fcntl.ioctl(self.file, abi.GET_MSRS, packed, True)
        for n, (_, place) in enumerate(_MSRS):
            page.words[place >> 3] = struct.unpack_from("<Q", packed, 16 + 16 * n)[0]
        debug = bytearray(128)
        fcntl.ioctl(self.file, abi.GET_DEBUGREGS, debug, True)
        self.debug = bytes(debug[:_DEBUG_BYTES])
        page.view[_DEBUG_OFFSET : _DEBUG_OFFSET + _DEBUG_BYTES] = self.debug

    def _store_sregs(self, page: RunPage) -> None:
        packed = self._sregs = bytes(self.bytes[abi.RUN_SREGS : abi.RUN_SREGS + abi.SREGS_BYTES])
        for n, name in enumerate(_ORDER):
            page.set_segment(name, _unpack_segment(packed, 24 * n))
        page.gdtr_base, page.gdtr_limit = _DESCRIPTOR.unpack_from(packed, _TABLES_AT)
        page.idtr_base, page.idtr_limit = _DESCRIPTOR.unpack_from(packed, _TABLES_AT + 16)
        page.cr0, page.cr2, page.cr3, page.cr4, page.cr8, page.efer, _ = _CONTROL.unpack_from(packed, _CONTROL_AT)
        page.cpl = packed[_SS_AT + 16] & 3

    def _store_events(self, page: RunPage) -> None:
        events = self._events = bytes(self.bytes[abi.RUN_EVENTS : abi.RUN_EVENTS + abi.EVENTS_BYTES])
        shadow, masked = events[11], events[14]
        held = run_page.BLOCKED_BY_STI | run_page.BLOCKED_BY_MOV_SS | run_page.BLOCKED_BY_NMI
        blocked = page.interruptibility & ~held
        blocked |= run_page.BLOCKED_BY_MOV_SS if shadow & 1 else 0
        blocked |= run_page.BLOCKED_BY_STI if shadow & 2 else 0
        page.interruptibility = blocked | (run_page.BLOCKED_BY_NMI if masked else 0)

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_delivering(self) -> bool:
        """Whether an event is on its way to the guest already."""
        events = self.bytes[abi.RUN_EVENTS : abi.RUN_EVENTS + 16]
        return bool(events[0] or events[3] or events[8] or events[12])

    @property
    def _faults(self) -> bool:
        """Whether a page fault, or what one became, may be on its way: KVM stops before delivery, too.

        A triple fault that it has not told yet is seen nowhere, so behind a signal the last exception counts.
        """
        injected, vector, _, pending = self.bytes[abi.RUN_EVENTS : abi.RUN_EVENTS + 4]
        under_way = injected or pending or self.reason == abi.EXIT_INTR
        return vector in (_DOUBLE_FAULT, _PAGE_FAULT) and bool(under_way)

    def takes_interrupts(self) -> bool:
        """Whether the guest, as the last exit left it, would take an interrupt now."""
        return bool(self.words[_RIP_WORD + 1] & _IF) and not self.bytes[abi.RUN_EVENTS + 11]

    def put_events(
        self, page: RunPage, *, interrupt: int | None, nmi: bool, exception: tuple[int, int | None] | None
    ) -> None:
        """Hands KVM what it is to deliver before the next instruction, with what holds interrupts back."""
        events = bytearray(self.bytes[abi.RUN_EVENTS : abi.RUN_EVENTS + abi.EVENTS_BYTES])
        if exception is not None:
            vector, code = exception
            struct.pack_into("<BBBBI", events, 0, 1, vector, code is not None, 0, code or 0)
        if interrupt is not None:
            struct.pack_into("<BBB", events, 8, 1, interrupt, 0)
        blocked = page.interruptibility
        shadow = (1 if blocked & run_page.BLOCKED_BY_MOV_SS else 0) | (2 if blocked & run_page.BLOCKED_BY_STI else 0)
        struct.pack_into("<B", events, 11, shadow)
        struct.pack_into("<BB", events, 13, nmi or events[13], bool(blocked & run_page.BLOCKED_BY_NMI))
        struct.pack_into("<I", events, 20, _EVENTS_VALID)
        self.bytes[abi.RUN_EVENTS : abi.RUN_EVENTS + abi.EVENTS_BYTES] = events
        self.words[abi.RUN_DIRTY >> 3] |= abi.SYNC_EVENTS
        self._events = b""


def _pack_segment(into: bytearray, place: int, segment: Segment, level: int | None) -> None:
    bits = segment.attributes
    dpl = bits >> 5 & 3 if level is None else level
    _SEGMENT.pack_into(
        into, place, segment.base, segment.limit & 0xFFFF_FFFF, segment.selector & 0xFFFF, bits & 15, bits >> 7 & 1,
        dpl, bits >> 14 & 1, bits >> 4 & 1, bits >> 13 & 1, bits >> 15 & 1, bits >> 12 & 1, bool(bits & _UNUSABLE),
    )  # fmt: skip


def _unpack_segment(packed: bytes, place: int) -> Segment:
    base, limit, selector, kind, present, dpl, big, system, long, granular, available, unusable = _SEGMENT.unpack_from(
        packed, place
    )
    bits = kind | system << 4 | dpl << 5 | present << 7 | available << 12 | long << 13 | big << 14 | granular << 15
    return Segment(selector, base, limit, bits | (_UNUSABLE if unusable else 0))
