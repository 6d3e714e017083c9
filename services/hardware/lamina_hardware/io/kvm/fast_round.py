"""The common round of a KVM core in one compiled call: load registers, KVM_RUN, a port or a device, back to the page.

    page.dirty ─► kvm_run.regs ─► KVM_RUN ─► IN, OUT, device ─► registers and exit record in the page     DONE
         │                            └────► any other exit, or an error: `exits.py` handles it           ENTERED
         └─► more than registers is to be loaded: nothing was touched                                     REFUSED

A call from Python costs as much as the exit itself, so what happens a hundred thousand times a second makes one. It
does what `Vcpu.load`, `exits.handle` and `Vcpu.store` do, for a vCPU that has everything else of its context already:
`core.arm` says so, by a `Lane` in `CoreRun.kept`. Behind an exit the processor's caches and branch predictions are
cold, so what is looked at in Python before and after costs several times what it does elsewhere: the checks are here,
words that stay the same from round to round stay in the block, and a result is a small number. Reads of devices are not
here, nor runs that bring their answer: which register they fill, and how, `device_reads.py` says. Works on addresses: a
block of words for each vCPU, made by `Lane`, its layout below.

Source: Linux, Documentation/virt/kvm/api.rst, KVM_RUN, KVM_CAP_SYNC_REGS.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable
from typing import TypeVar, cast

import numba

from lamina_hardware.engines.interface import CoreRun, Stopped
from lamina_hardware.io.kvm import abi, device_reads
from lamina_hardware.io.kvm.vcpu import Vcpu
from lamina_hardware.io.kvm.vm import Vm
from lamina_hardware.io.native import (
    Word,
    call1,
    call3,
    inlined,
    load8,
    load16,
    load32,
    load64,
    put,
    store8,
    store64,
    u64,
    word,
)
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import ExitReason, RunPage

F = TypeVar("F", bound=Callable[..., object])

_WHOLE = (1 << 64) - 1
DONE, OTHERS, ITEM, ENTERED = 1 << 6, 1 << 7, 1 << 8, 1 << 16
"""What `step` returns, above an exit reason (DONE) or an error's number (ENTERED). OTHERS: segments, control registers
or events changed; ITEM: an INS, which takes its answer when it runs again. 0: refused."""
REASON, ERROR = DONE - 1, ENTERED - 1

# The block: addresses, the vCPU's file, what exits, `Vcpu.plain_out`, where `Vm.changed` is, the thread, whether the
# page has general registers that the vCPU does not, runs so far; debug registers, segments and events as they were
# last; room; ranges.
_IOCTL, _ERRNO, _SELF, _FILE, _RUN, _PAGE, _FLAGS, _PLAIN_OUT, _CHANGED, _THREAD, _STALE, _TURNS = (
    u64(n) for n in range(12)
)
_DEBUG, _SAVED, _BEFORE, _RANGES = u64(12), u64(18), u64(65), u64(83)
_DEBUG_WORDS, _SAVED_WORDS, _REGISTER_WORDS = u64(6), u64((abi.SREGS_BYTES + abi.EVENTS_BYTES) // 8), u64(18)
_F_BEHIND, _F_ALL_PORTS, _F_POSTED = 1, 2, 4

_0, _1, _2, _3, _4, _5, _6, _7, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 16))
_LOW32, _BITS = u64(0xFFFF_FFFF), u64(64)
_K_RUN = u64(abi.RUN)
_WINDOW, _IMMEDIATE, _REASON, _BODY = (
    u64(n) for n in (abi.RUN_WINDOW, abi.RUN_IMMEDIATE, abi.RUN_REASON, abi.RUN_BODY)
)
_DIRTY, _REGS, _SREGS = (u64(n) for n in (abi.RUN_DIRTY, abi.RUN_REGS, abi.RUN_SREGS))
_RAX, _RCX, _RDI, _RIP, _RFLAGS = (u64(abi.RUN_REGS + 8 * n) for n in (0, 2, 5, 16, 17))
_SS_DPL, _SHADOW, _NMI_MASKED = u64(abi.RUN_SREGS + 24 * 5 + 16), u64(abi.RUN_EVENTS + 11), u64(abi.RUN_EVENTS + 14)
_EXIT_IO, _EXIT_MMIO = u64(abi.EXIT_IO), u64(abi.EXIT_MMIO)
_SYNC_REGS = u64(abi.SYNC_REGS)
_VM86 = u64(1 << 17)
_MOST_ACCESSES = u64(abi.MOST_ACCESSES)

_P_DIRTY, _P_CPL, _P_GPR, _P_RIP, _P_EXIT = (
    u64(n) for n in (0x008, 0x010, run_page.GPR_OFFSET, run_page.RIP_OFFSET, run_page.EXIT_OFFSET)
)
_P_BLOCKED, _P_ACTIVITY, _P_DEBUG = (u64(run_page.STATE_OFFSET + n) for n in (0, 8, 16))
_P_EVENT, _P_LOAD = u64(run_page.TSC_OFFSET + 0x20), u64(8 * device_reads.LOAD)
_VALID = u64(run_page.EVENT_VALID)
_BY_STI, _BY_MOV_SS, _BY_NMI = (
    u64(n) for n in (run_page.BLOCKED_BY_STI, run_page.BLOCKED_BY_MOV_SS, run_page.BLOCKED_BY_NMI)
)
_RIP_DIRTY, _TAKEN = u64(run_page.DIRTY_RIP), u64(run_page.DIRTY_GPRS | run_page.DIRTY_RIP)
# Places in the exit record, from its begin; the words between them are 0.
_X_WORDS = u64(18)
_X_GPA, _X_ACCESS, _X_SIZE, _X_VALUE, _X_REGISTER = (u64(8 * n) for n in range(4, 9))
_X_PORT, _X_IO_SIZE, _X_DIRECTION, _X_DATA, _X_COUNT = (u64(8 * n) for n in (9, 10, 11, 12, 13))
_X_RIP = u64(8 * 15)
_IO, _MMIO, _NO_REGISTER = u64(ExitReason.IO), u64(ExitReason.MMIO), u64(run_page.NO_REGISTER)
_WRITE = u64(run_page.ACCESS_WRITE)
_BEHIND, _ALL_PORTS, _POSTED = (u64(n) for n in (_F_BEHIND, _F_ALL_PORTS, _F_POSTED))
_DONE, _ENTERED, _OTHERS, _ITEM = (u64(n) for n in (DONE, ENTERED, OTHERS, ITEM))

_libc = ctypes.CDLL(None)
_CALLS = tuple(
    ctypes.cast(one, ctypes.c_void_p).value or 0
    for one in (_libc.ioctl, _libc.__errno_location, _libc.pthread_self)  # what `threading.get_ident` calls
)


def released(signature: str) -> Callable[[F], F]:
    """Compiles a function that gives up the GIL while it runs."""
    return cast(Callable[[F], F], numba.njit(signature, cache=True, nogil=True))


class Lane:
    """What `step` needs of a vCPU and the context in it: for one run page and one set of exit controls."""

    __slots__ = (
        "_fixed", "_words", "block", "eptp", "given", "page", "run_page", "stopped", "usual", "vcpu", "vm", "work",
    )  # fmt: skip

    def __init__(self, vm: Vm, vcpu: Vcpu, page: RunPage, work: CoreRun) -> None:
        self.vm, self.vcpu, self.page = vm, vcpu, page
        self.usual, self.stopped = -1, Stopped(0, 0)
        """What `step` returned last, but for what is to be taken over; and how that is told: the same each time."""
        self.work: CoreRun | None = None
        """What the next run may be; None while it is disarmed."""
        self.eptp, self.run_page, self.given = work.eptp, work.run_page, work.given
        controls = None if work.given is None else work.given.controls
        ports = () if controls is None else controls.ports
        devices = () if controls is None else controls.devices
        self._fixed = 0 if controls is not None and not controls.all_ports else _F_ALL_PORTS
        self._fixed |= _F_POSTED if controls is not None and controls.posted else 0
        ranges = [len(ports), *(n for one in ports for n in one), len(devices), *(n for one in devices for n in one)]
        run, view = (ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in (vcpu.run, page.view))
        head = [*_CALLS, vcpu.file, run, view, 0, 0, vm.changed_at]
        self._words = array("Q", [*head, *[0] * (int(_RANGES) - len(head)), *ranges])
        self.block = self._words.buffer_info()[0]

    @property
    def turns(self) -> int:
        """How many runs it had."""
        return self._words[int(_TURNS)]

    def arm(self, work: CoreRun) -> None:
        """Lets the next run of `work`, which has nothing behind it, be one call; takes over what the last changed."""
        self.disarm()
        vcpu, words = self.vcpu, self._words
        words[int(_FLAGS)] = self._fixed | (_F_BEHIND if vcpu.out_is_behind else 0)
        words[int(_PLAIN_OUT)] = vcpu.plain_out & _WHOLE
        words[int(_THREAD)] = vcpu.thread
        words[int(_STALE)] = int(vcpu.stale != 0)
        vcpu.stale = 0
        debug, saved, first = int(_DEBUG), int(_SAVED), abi.RUN_SREGS >> 3
        words[debug : debug + int(_DEBUG_WORDS)] = array("Q", vcpu.debug)
        words[saved : saved + int(_SAVED_WORDS)] = array("Q", vcpu.words[first : first + int(_SAVED_WORDS)])
        self.work, work.kept = work, self

    def disarm(self) -> None:
        """Has the next run look at everything."""
        work, self.work = self.work, None
        if work is None:
            return
        work.kept = None
        if self._words[int(_STALE)]:
            self.vcpu.stale = run_page.DIRTY_GPRS

    def take(self, found: int) -> None:
        """Takes over what `step` says of a round beside general registers and the exit; makes it the usual one."""
        self.usual = found & ~(OTHERS | ITEM)
        self.stopped = Stopped(found & REASON, 0)
        if found & OTHERS:
            self.vcpu.store_others(self.page)
        if found & ITEM:
            self.disarm()
            self.vcpu.asks = True

    def serves(self, work: CoreRun) -> bool:
        """Whether this is for the second stage, the run page and the controls that a context has now."""
        same = (self.eptp, self.run_page) == (work.eptp, work.run_page)
        return same and self.given is work.given


@inlined("uint64(uint64, uint64)")
def _enter(block: Word, run: Word) -> Word:
    """Calls KVM_RUN; returns 0 or the error's number."""
    if call3(word(block, _IOCTL), word(block, _FILE), _K_RUN, _0) & _LOW32 == _0:
        return _0
    return load32(call1(word(block, _ERRNO), _0))


@inlined("void(uint64, uint64)")
def _finish(block: Word, run: Word) -> None:
    """Has KVM finish an instruction and enter no further, as `Vcpu.finish` does."""
    store8(run + _IMMEDIATE, _1)
    n = _0
    while n < _MOST_ACCESSES and _enter(block, run) == _0:
        n += _1
    store8(run + _IMMEDIATE, _0)


@inlined("void(uint64, uint64, uint64)")
def _copy(to: Word, source: Word, count: Word) -> None:
    n = _0
    while n < count:
        put(to, n, word(source, n))
        n += _1


@inlined("boolean(uint64, uint64, uint64)")
def _equal(one: Word, other: Word, count: Word) -> Word:
    n = _0
    while n < count:
        if word(one, n) != word(other, n):
            return False
        n += _1
    return True


@inlined("boolean(uint64, uint64, uint64)")
def _touches(ranges: Word, first: Word, size: Word) -> Word:
    """Whether an access reaches into a range of the list at `ranges`: how many, then (first, count) of each."""
    n, end = _0, word(ranges, _0)
    while n < end:
        start = word(ranges, _1 + _2 * n)
        if start < first + size and first < start + word(ranges, _2 + _2 * n):
            return True
        n += _1
    return False


@inlined("boolean(uint64, uint64, uint64)")
def _takes(block: Word, page: Word, dirty: Word) -> Word:
    """Whether general registers, RIP and flags are all that is to be loaded, and nothing waits to interrupt.

    And whether this is the thread that one who stops the run would signal.
    """
    run = word(block, _RUN)
    if dirty & ~_TAKEN != _0 or load64(page + _P_LOAD) != _0 or load64(word(block, _CHANGED)) != _0:
        return False
    if call1(word(block, _SELF), _0) != word(block, _THREAD):
        return False
    if load64(page + _P_EVENT) & _VALID != _0 or load64(page + _P_ACTIVITY) != _0:
        return False
    if dirty & _RIP_DIRTY != _0:
        shadow = load8(run + _SHADOW)
        blocked = (_BY_MOV_SS if shadow & _1 != _0 else _0) | (_BY_STI if shadow & _2 != _0 else _0)
        if load8(run + _NMI_MASKED) != _0:
            blocked |= _BY_NMI
        if load64(page + _P_BLOCKED) & (_BY_STI | _BY_MOV_SS | _BY_NMI) != blocked:
            return False
        if load64(page + _P_CPL) & _3 != load8(run + _SS_DPL):
            return False
        if (load64(page + _P_RIP + _8) ^ load64(run + _RFLAGS)) & _VM86 != _0:
            return False
    return _equal(page + _P_DEBUG, block + _8 * _DEBUG, _DEBUG_WORDS)


@inlined("void(uint64, uint64)")
def _load(run: Word, page: Word) -> None:
    """Page → `kvm_run`: KVM's order of registers is RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 and so on."""
    to, source = run + _REGS, page + _P_GPR
    put(to, _0, word(source, _0))
    put(to, _1, word(source, _3))
    put(to, _2, word(source, _1))
    put(to, _3, word(source, _2))
    put(to, _4, word(source, _6))
    put(to, _5, word(source, _7))
    put(to, _6, word(source, _4))
    put(to, _7, word(source, _5))
    _copy(to + _8 * _8, source + _8 * _8, _8)
    store64(run + _RIP, load64(page + _P_RIP))
    store64(run + _RFLAGS, load64(page + _P_RIP + _8) | _2)
    store64(run + _DIRTY, load64(run + _DIRTY) | _SYNC_REGS)


@inlined("void(uint64, uint64)")
def _store(run: Word, page: Word) -> None:
    """`kvm_run` → page."""
    to, source = page + _P_GPR, run + _REGS
    put(to, _0, word(source, _0))
    put(to, _3, word(source, _1))
    put(to, _1, word(source, _2))
    put(to, _2, word(source, _3))
    put(to, _6, word(source, _4))
    put(to, _7, word(source, _5))
    put(to, _4, word(source, _6))
    put(to, _5, word(source, _7))
    _copy(to + _8 * _8, source + _8 * _8, _8)
    store64(page + _P_RIP, load64(run + _RIP))
    store64(page + _P_RIP + _8, load64(run + _RFLAGS))


@inlined("void(uint64, uint64)")
def _clear(record: Word, reason: Word) -> None:
    n = _0
    while n < _X_WORDS:
        put(record, n, _0)
        n += _1
    store64(record, reason)
    store64(record + _X_REGISTER, _NO_REGISTER)


@inlined("uint64(uint64, uint64)")
def _port(block: Word, record: Word) -> Word:
    """Handles IN and OUT of one item; returns 0 for what it does not, with nothing touched."""
    run, flags = word(block, _RUN), word(block, _FLAGS)
    out, size, port = load8(run + _BODY) & _1, load8(run + _BODY + _1), load16(run + _BODY + _2)
    if load32(run + _BODY + _4) != _1:
        return _0
    if out != _0 and (flags & _BEHIND == _0 or flags & _POSTED != _0):
        return _0
    if out != _0 and load64(run + _RCX) == _0 and load64(run + _RIP) != word(block, _PLAIN_OUT):
        return _0  # it may be the last of a REP OUTS
    if flags & _ALL_PORTS == _0 and not _touches(block + _8 * _RANGES, port, size):
        return _0
    place = run + load64(run + _BODY + _8)
    result = _DONE | _IO
    _clear(record, _IO)
    if out != _0:
        low = (_1 << _8 * size) - _1
        store64(record + _X_DATA, (load32(place) if size > _2 else load16(place)) & low)
    else:
        _copy(block + _8 * _BEFORE, run + _REGS, _REGISTER_WORDS)
        n = _0
        while n < size:
            store8(place + n, _0)
            n += _1
        _finish(block, run)
        put(block, _STALE, _1)
        if load64(run + _RDI) != load64(block + _8 * _BEFORE + _RDI - _REGS):
            _copy(run + _REGS, block + _8 * _BEFORE, _REGISTER_WORDS)
            result |= _ITEM
        store64(run + _RAX, load64(block + _8 * _BEFORE))
    store64(record + _X_PORT, port)
    store64(record + _X_IO_SIZE, size)
    store64(record + _X_DIRECTION, out)
    store64(record + _X_COUNT, _1)
    return result


@inlined("uint64(uint64, uint64)")
def _device(block: Word, record: Word) -> Word:
    """Handles a write to a device; returns 0 for anything else, with nothing touched."""
    run, flags = word(block, _RUN), word(block, _FLAGS)
    gpa, size, writes = load64(run + _BODY), load32(run + _BODY + _16), load8(run + _BODY + _16 + _4)
    devices = block + _8 * (_RANGES + _1 + _2 * word(block, _RANGES))
    if writes == _0 or flags & _POSTED != _0 or size > _8 or not _touches(devices, gpa, _1):
        return _0
    low = ~_0 >> (_BITS - _8 * size)
    _clear(record, _MMIO)
    store64(record + _X_GPA, gpa)
    store64(record + _X_ACCESS, _WRITE)
    store64(record + _X_SIZE, size)
    store64(record + _X_VALUE, load64(run + _BODY + _8) & low)
    _finish(block, run)
    return _DONE | _MMIO


@released("uint64(uint64)")
def _step(block: Word) -> Word:
    """Runs the vCPU of a block once, until an exit; see the constants above for what it returns.

    Whoever calls has looked for requests to stop after it could be seen running.
    """
    run, page = word(block, _RUN), word(block, _PAGE)
    put(block, _TURNS, word(block, _TURNS) + _1)
    dirty, stale = load64(page + _P_DIRTY), word(block, _STALE)
    if not _takes(block, page, dirty):
        return _0
    if dirty | stale != _0:
        _load(run, page)
        store64(page + _P_DIRTY, _0)
        put(block, _STALE, _0)
    store8(run + _WINDOW, _0)
    error = _enter(block, run)
    if error != _0:
        return _ENTERED | error
    reason, record = load32(run + _REASON), page + _P_EXIT
    result = _0
    if reason == _EXIT_IO:
        result = _port(block, record)
    elif reason == _EXIT_MMIO:
        result = _device(block, record)
    if result == _0:
        return _ENTERED
    _store(run, page)
    store64(record + _X_RIP, load64(run + _RIP))
    if not _equal(block + _8 * _SAVED, run + _SREGS, _SAVED_WORDS):
        _copy(block + _8 * _SAVED, run + _SREGS, _SAVED_WORDS)
        result |= _OTHERS
    return result


step: Callable[[int], int] = _step.overloads[_step.signatures[0]].entry_point  # type: ignore[attr-defined]
"""`_step` without the choice among its forms, of which it has one."""
