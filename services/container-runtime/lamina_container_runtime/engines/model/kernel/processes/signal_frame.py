"""Running a signal handler: the frame on the user's stack, and the way back.

                     higher addresses
    ┌────────────────────────────┐ ◀─ rsp at the signal, less the red zone of 128 bytes (or the alternate stack)
    │ FXSAVE area, 512 bytes     │    aligned to 64
    ├────────────────────────────┤
    │ siginfo, 128 bytes         │ ◀─ rsi
    │ ucontext, 304 bytes        │ ◀─ rdx   registers, signal mask, pointer to the FXSAVE area
    │ return address (restorer)  │ ◀─ rsp in the handler
    └────────────────────────────┘

The restorer calls rt_sigreturn, which loads all of it back. Source: Linux arch/x86/kernel/signal_64.c.
"""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.engines.model.kernel.abi import SIGCONT, SIGKILL, Errno
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.registers import USER_CS, USER_RFLAGS, USER_SS
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.kernel.signals import (
    SA_NODEFER,
    SA_ONSTACK,
    SA_RESETHAND,
    SA_RESTART,
    SIG_DFL,
    SIG_IGN,
    UNBLOCKABLE,
    Action,
    Disposition,
    SignalInfo,
    default_action,
)
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_kit.bus.run_page import DIRTY_FPU, DIRTY_GPRS, DIRTY_RIP, FXSAVE_BYTES, RunPage
from lamina_kit.effects import Step
from lamina_kit.paging import is_user

_GPR_ORDER = (8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4)
"""Order of the general registers in sigcontext: r8 to r15, di, si, bp, bx, dx, ax, cx, sp."""
_CONTEXT = struct.Struct("<QQQiiQ16QQQ4HQQQQQ8QQ")
_UCONTEXT_BYTES = 304
_FRAME_BYTES = 8 + _UCONTEXT_BYTES + 128
_RED_ZONE = 128
_SYSCALL_BYTES = 2
assert _CONTEXT.size == _UCONTEXT_BYTES


def before_user(thread: Thread) -> Step[bool]:
    """Does what must be done before a thread goes on in user mode; returns False when it has to end."""
    process = thread.process
    while not thread.must_die:
        if process.stopped:
            yield from wait(thread, (process.resumed,), "stopped", killable_only=True)
            continue
        info = thread.pending.take(thread.blocked) or process.pending.take(thread.blocked)
        if info is None:
            _go_on(thread)
            return True
        disposition = process.handlers.get(info.signal)
        if disposition.handler == SIG_DFL:
            _default(thread, info.signal)
        elif disposition.handler != SIG_IGN:
            yield from _enter_handler(thread, info, disposition)
    return False


def _default(thread: Thread, signal: int) -> None:
    action = default_action(signal)
    if thread.process.is_protected and signal != SIGKILL:
        return
    if action is Action.STOP:
        thread.process.stop(signal)
    elif action is Action.TERMINATE and signal != SIGCONT:
        thread.process.exit_group(signal)


def _go_on(thread: Thread) -> None:
    """Restarts the system call that a signal without a handler interrupted, and puts a waiting mask back."""
    if thread.interrupted is not None:
        number, _ = thread.interrupted
        thread.interrupted = None
        thread.page.rax = number
        thread.page.rip -= _SYSCALL_BYTES
        thread.page.dirty |= DIRTY_GPRS | DIRTY_RIP
    if thread.saved_blocked is not None:
        thread.blocked, thread.saved_blocked = thread.saved_blocked, None


def _enter_handler(thread: Thread, info: SignalInfo, disposition: Disposition) -> Step[None]:
    page = thread.page
    if thread.interrupted is not None:
        number, restartable = thread.interrupted
        thread.interrupted = None
        if restartable and disposition.flags & SA_RESTART:
            page.rax = number
            page.rip -= _SYSCALL_BYTES
    thread.restart_deadline = None
    try:
        yield from _push_frame(thread, info, disposition)
    except Errno:
        thread.process.exit_group(11)
        return
    mask = disposition.mask
    if not disposition.flags & SA_NODEFER:
        mask |= 1 << (info.signal - 1)
    thread.blocked = (thread.blocked | mask) & ~UNBLOCKABLE
    if disposition.flags & SA_RESETHAND:
        thread.process.handlers.table[info.signal] = Disposition()


def _push_frame(thread: Thread, info: SignalInfo, disposition: Disposition) -> Step[None]:
    page = thread.page
    base, size, flags = thread.alternate_stack
    on_alternate = base <= page.rsp - 1 < base + size if size else False
    top = page.rsp - _RED_ZONE
    if disposition.flags & SA_ONSTACK and size and not flags & 2 and not on_alternate:
        top = base + size
    fpstate = (top - FXSAVE_BYTES) & ~63
    frame = ((fpstate - _FRAME_BYTES) & ~15) - 8
    if not is_user(frame, _FRAME_BYTES):
        raise Errno(errno.EFAULT)
    saved_mask = thread.blocked if thread.saved_blocked is None else thread.saved_blocked
    thread.saved_blocked = None
    fault = info.address if info.code > 0 else 0
    context = _CONTEXT.pack(
        6, 0, base, flags if size else 2, 0, size, *(page.gpr[number] for number in _GPR_ORDER),
        page.rip, page.rflags, USER_CS, 0, 0, USER_SS, 0, 0, saved_mask, fault, fpstate, *(0,) * 8, saved_mask,
    )  # fmt: skip
    yield from user.write(thread, fpstate, bytes(page.fxsave))
    yield from user.write(thread, frame, struct.pack("<Q", disposition.restorer) + context + info.pack())
    page.rdi, page.rsi, page.rdx, page.rax = info.signal, frame + 8 + _UCONTEXT_BYTES, frame + 8, 0
    page.rsp, page.rip = frame, disposition.handler
    page.rflags &= ~0x10500
    page.dirty |= DIRTY_GPRS | DIRTY_RIP


def sigreturn(thread: Thread) -> Step[None]:
    """Loads the registers and the mask that a handler's frame saved; a frame that cannot be read kills (SIGSEGV)."""
    page = thread.page
    try:
        data = yield from user.read(thread, page.rsp, _UCONTEXT_BYTES)
        _, _, base, flags, _, size, *rest = _CONTEXT.unpack(data)
        gprs, (rip, rflags), fpstate, mask = rest[:16], rest[16:18], rest[26], rest[35]
        area = (yield from user.read(thread, fpstate, FXSAVE_BYTES)) if fpstate else b""
    except Errno:
        thread.process.exit_group(11)
        return
    if not is_user(rip):
        thread.process.exit_group(11)
        return
    for number, value in zip(_GPR_ORDER, gprs, strict=True):
        page.gpr[number] = value
    page.rip = rip
    page.rflags = rflags & USER_RFLAGS | 0x202
    thread.blocked = mask & ~UNBLOCKABLE
    thread.alternate_stack = (base, size, flags & 2)
    if area:
        _load_fpu(page, area)
    page.dirty |= DIRTY_GPRS | DIRTY_RIP


def _load_fpu(page: RunPage, area: bytes) -> None:
    """Loads an FXSAVE area from the user; bits of MXCSR that do not exist are dropped, or loading it would fault."""
    page.fxsave[:] = area
    control = int.from_bytes(area[24:28], "little") & 0xFFFF
    page.fxsave[24:28] = control.to_bytes(4, "little")
    page.dirty |= DIRTY_FPU
