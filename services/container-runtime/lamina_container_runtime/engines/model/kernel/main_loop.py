"""The life of a thread in the kernel: run it, answer its exit, look at its signals, run it again.

┌─▶ signals ─▶ Run ─▶ SYSCALL ─▶ the call's step ─────────┐
│                 ├─▶ #PF ─▶ FaultIn, or SIGSEGV ─────────┤
│                 ├─▶ #DE #UD #GP … ─▶ SIGFPE SIGILL … ───┤
│                 └─▶ CPUID, RDTSC, RDRAND ─▶ the answer ─┤
└─────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable

from lamina_container_runtime.engines.model.effects import Access, Run, RunEnd, RunResult
from lamina_container_runtime.engines.model.kernel.abi import (
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGKILL,
    SIGSEGV,
    SIGTRAP,
    Interrupted,
)
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.container import Loss
from lamina_container_runtime.engines.model.kernel.processes.lifecycle import exit_thread
from lamina_container_runtime.engines.model.kernel.processes.registers import user_cpuid
from lamina_container_runtime.engines.model.kernel.processes.signal_frame import before_user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.kernel.signals import (
    FPE_INTDIV,
    ILL_ILLOPN,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SI_KERNEL,
    SignalInfo,
)
from lamina_kit.bus.run_page import DIRTY_GPRS, DIRTY_RIP, ExitReason, ExitRecord, RunPage
from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError

_EXCEPTIONS = {
    0: (SIGFPE, FPE_INTDIV),
    1: (SIGTRAP, SI_KERNEL),
    3: (SIGTRAP, SI_KERNEL),
    4: (SIGSEGV, SI_KERNEL),
    5: (SIGSEGV, SI_KERNEL),
    6: (SIGILL, ILL_ILLOPN),
    7: (SIGFPE, SI_KERNEL),
    10: (SIGSEGV, SI_KERNEL),
    11: (SIGBUS, SI_KERNEL),
    12: (SIGBUS, SI_KERNEL),
    13: (SIGSEGV, SI_KERNEL),
    16: (SIGFPE, SI_KERNEL),
    17: (SIGBUS, SI_KERNEL),
    19: (SIGFPE, SI_KERNEL),
}
"""Exception vector → signal and si_code. Source: Linux arch/x86/kernel/traps.c."""
_SYSCALL, _PAGE_FAULT = int(ExitReason.SYSCALL), int(ExitReason.PAGE_FAULT)
_FETCH = 1 << 4
_WRITE = 1 << 1
_PRESENT = 1 << 0
_CARRY = 1


class MainLoop:
    """Runs threads; `dispatch` performs the system call that a thread asks for."""

    def __init__(self, dispatch: Callable[[Thread], Step[None]]) -> None:
        self._dispatch = dispatch

    def run(self, thread: Thread) -> Step[None]:
        """Runs a thread to its end. What the layers below refuse for good kills its process, and is recorded."""
        run = Run(thread)
        try:
            while thread.undisturbed or (yield from before_user(thread)):
                result: RunResult = yield run
                thread.process.instructions += result.instructions
                thread.process.run_time_ns += result.run_time_ns
                if result.end is RunEnd.EXIT:
                    yield from self._answer(thread)
        except LaminaError as error:
            kernel = thread.kernel
            kernel.record(
                kernel.name_of(thread.process.container.container_id),
                "process.lost",
                pid=thread.process.pid,
                reason=error.reason,
                message=error.message,
            )
            thread.process.lose(Loss.LAYER_FAILED)
        except Interrupted:
            thread.process.exit_group(SIGKILL)
        yield from exit_thread(thread)

    def lose(self, thread: Thread) -> Step[None]:
        """Ends a thread whose step failed by a defect of the kernel, and its process with it."""
        thread.process.lose(Loss.KERNEL_DEFECT)
        if thread.tid in thread.process.threads:
            yield from exit_thread(thread)

    def _answer(self, thread: Thread) -> Step[None]:
        page = thread.page
        reason = page.exit_reason
        if reason == _SYSCALL:
            yield from self._dispatch(thread)
            return
        if reason == _PAGE_FAULT:
            code, address = page.exit_error_code, page.exit_address
            access = Access.WRITE if code & _WRITE else Access.READ
            if code & _FETCH:
                access = Access.EXECUTE
            if not (yield from user.resolve_fault(thread, thread.memory, address, access)) and not thread.must_die:
                _segmentation_fault(thread, code, address)
            return
        record = page.load_exit()
        if reason == ExitReason.EXCEPTION:
            signal, code = _EXCEPTIONS.get(record.vector, (SIGSEGV, SI_KERNEL))
            address = page.rip if code in (FPE_INTDIV, ILL_ILLOPN) else record.address
            thread.process.force_signal(thread, SignalInfo(signal, code, address=address))
        elif reason == ExitReason.CPUID:
            _cpuid(page, record)
        elif reason == ExitReason.TIMESTAMP:
            _timestamp(thread, page, record)
        elif reason == ExitReason.RANDOM:
            _random(thread, page, record)
        else:
            # I/O, HLT, MSR, VMCALL and control registers are privileged: at ring 3 they raise #GP.
            thread.process.force_signal(thread, SignalInfo(SIGSEGV, SI_KERNEL))


def _segmentation_fault(thread: Thread, error_code: int, address: int) -> None:
    code = SEGV_ACCERR if error_code & _PRESENT else SEGV_MAPERR
    thread.process.force_signal(thread, SignalInfo(SIGSEGV, code, address=address))


def _cpuid(page: RunPage, record: ExitRecord) -> None:
    leaf, subleaf = page.rax & 0xFFFFFFFF, page.rcx & 0xFFFFFFFF
    found = [entry for entry in user_cpuid() if (entry.leaf, entry.subleaf) in ((leaf, subleaf), (leaf, 0))]
    answer = (found[0].eax, found[0].ebx, found[0].ecx, found[0].edx) if found else (0, 0, 0, 0)
    page.rax, page.rbx, page.rcx, page.rdx = answer
    _skip(page, record)


def _timestamp(thread: Thread, page: RunPage, record: ExitRecord) -> None:
    """A time stamp counter of 1 GHz that shows the stack's clock."""
    now = thread.kernel.clock.now_ns()
    page.rax, page.rdx = now & 0xFFFFFFFF, now >> 32
    if record.instruction_length == 3:
        page.rcx = 0
    _skip(page, record)


def _random(thread: Thread, page: RunPage, record: ExitRecord) -> None:
    """Puts random bits of the runtime's own source into the register that the exit names, and sets the carry flag."""
    size = record.access_size or 8
    value = int.from_bytes(thread.kernel.rng.bytes(size), "little")
    register = record.access_register & 15
    page.gpr[register] = page.gpr[register] & ~0xFFFF | value if size == 2 else value
    page.rflags = page.rflags & ~0x8D5 | _CARRY
    _skip(page, record)


def _skip(page: RunPage, record: ExitRecord) -> None:
    """Goes on behind an instruction that the kernel answered."""
    if record.rip:
        page.rip = record.rip
    elif record.instruction_length:
        page.rip += record.instruction_length
    page.dirty |= DIRTY_GPRS | DIRTY_RIP
