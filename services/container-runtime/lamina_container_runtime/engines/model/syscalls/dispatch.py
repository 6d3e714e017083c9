"""From a SYSCALL exit to the system call's function and back.

Number in rax, arguments in rdi, rsi, rdx, r10, r8, r9; the result, or minus the error number, in rax. A call is a
function of the thread and its arguments as unsigned 64-bit numbers; it returns the result, or is a step that does. One
that returns None has set all registers itself.
"""

from __future__ import annotations

import errno

from lamina_container_runtime.engines.model.kernel.abi import U64, Errno, Interrupted
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.syscalls import memory, system
from lamina_container_runtime.engines.model.syscalls.files import (
    descriptors,
    directories,
    metadata,
    opening,
    polling,
    read_write,
)
from lamina_container_runtime.engines.model.syscalls.numbers import NUMBERS, counted_as, name_of
from lamina_container_runtime.engines.model.syscalls.processes import identity, lifecycle, signals, timing
from lamina_container_runtime.engines.model.syscalls.registry import Call
from lamina_kit.bus.run_page import DIRTY_GPRS
from lamina_kit.effects import Step
from lamina_kit.errors import AlreadyExists, InvalidArgument, LaminaError, NotFound, OutOfRange, ResourceExhausted

_MODULES = (
    descriptors, directories, metadata, opening, polling, read_write,
    identity, lifecycle, signals, timing,
    memory, system,
)  # fmt: skip
TABLE: dict[int, Call] = {NUMBERS[name]: call for module in _MODULES for name, call in module.CALLS.table.items()}
"""The system calls that this kernel has, by number; every other one is ENOSYS."""


def dispatch(thread: Thread) -> Step[None]:
    """Performs the system call that a thread asks for and puts its result into rax."""
    page = thread.page
    number = page.rax
    process = thread.process
    process.syscalls += 1
    key = counted_as(number)
    process.syscall_counts[key] = process.syscall_counts.get(key, 0) + 1
    call = TABLE.get(number)
    if call is None:
        _unsupported(thread, number)
        result: int | None = -errno.ENOSYS
    else:
        arguments = (page.rdi, page.rsi, page.rdx, page.r10, page.r8, page.r9)[: call.arity]
        try:
            outcome = call.function(thread, *arguments)
            if outcome is None or isinstance(outcome, int):
                result = outcome
            else:
                with thread.kernel.span(call.span, pid=process.pid, program=process.name):
                    result = yield from outcome
        except Interrupted as error:
            thread.interrupted = (number, error.restartable)
            result = -errno.EINTR
        except Errno as error:
            result = -error.number
        except LaminaError as error:
            result = -_errno_of(error)
    if result is not None:
        thread.page.rax = result & U64
    if thread.interrupted is None:
        thread.restart_deadline = None
    thread.page.dirty |= DIRTY_GPRS


def _unsupported(thread: Thread, number: int) -> None:
    """Notes a call that this kernel does not have: counted each time, recorded once for each container."""
    process = thread.process
    key = counted_as(number)
    process.unsupported[key] = process.unsupported.get(key, 0) + 1
    container = process.container
    if number not in container.enosys_seen and len(container.enosys_seen) < 1024:
        container.enosys_seen[number] = None
        thread.kernel.record(
            thread.kernel.name_of(container.container_id),
            "syscall.unsupported",
            rule="ENOSYS: not in this kernel's table",
            syscall=name_of(number),
            number=number,
            program=process.name,
        )


def _errno_of(error: LaminaError) -> int:
    """Returns the error number for what the layers below refuse; an error that no program can cause goes on."""
    if isinstance(error, ResourceExhausted):
        return errno.ENOMEM
    if isinstance(error, (NotFound, OutOfRange)):
        return errno.ENOMEM
    if isinstance(error, InvalidArgument):
        return errno.EINVAL
    if isinstance(error, AlreadyExists):
        return errno.EEXIST
    raise error
