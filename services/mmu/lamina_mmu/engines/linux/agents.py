"""Having an agent do something, and reading what the kernel says of a space."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    LaminaError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from lamina_mmu.domain.effects import Aside
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.kernel.maps import Faults, Region, hole, outside, parse, parse_faults
from lamina_mmu.domain.kernel.port import AGENT_END, AGENT_START, Reply, reply_key
from lamina_mmu.engines.linux.refusals import refuse
from lamina_mmu.engines.linux.state import KernelSpace, State

MMAP, MPROTECT, MUNMAP, BRK, MREMAP, MSYNC, MADVISE, CLONE = 9, 10, 11, 12, 25, 26, 28, 56
MUNLOCK, MLOCKALL, MUNLOCKALL, PRCTL, MLOCK2 = 150, 151, 152, 157, 325
"""Numbers of system calls. Source: Linux arch/x86/entry/syscalls/syscall_64.tbl."""


def gone(space: KernelSpace) -> FailedPrecondition:
    """Returns the error of a space whose process has ended."""
    if space.out_of_memory:
        return FailedPrecondition(
            f"The kernel has ended process {space.pid} of the space s-{space.number}, because its group {space.group} "
            "ran out of memory.",
            reason="HANDLE_STALE",
            next_step="Raise the limit of the group or give the host swap, and create a new space.",
        )
    return FailedPrecondition(
        f"Process {space.pid} of the space s-{space.number} has ended, and the space with it.",
        reason="HANDLE_STALE",
        next_step="Create a new space, or attach to another process.",
    )


def ended(state: State, space: KernelSpace, why: str) -> None:
    """Forgets a space whose process has ended. Idempotent."""
    if state.spaces.find(space.id) is not space:
        return
    space.closing = True
    state.spaces.remove(space)
    if space.agent is None:
        state.kernel.processes.unwatch(space.pid)
    else:
        state.kernel.processes.end(space.pid)
    state.feed.end(space.number)
    space.out_of_memory = state.on_ended(space)
    state.ports.record(state.names.space(space.number), "space.ended", pid=space.pid, rule=why)


def own(state: State, handle: Handle) -> KernelSpace:
    """Returns a space that does what it is told; those that are only attached to are refused."""
    space = state.spaces.get(handle)
    if space.agent is None:
        raise refuse(
            "mapping",
            f"change process {space.pid}: its mappings are its own",
            "Read, write or reclaim it; or create a space of your own.",
        )
    return space


def call(
    state: State, space: KernelSpace, operation: int, arguments: Sequence[int], content: int | None = None
) -> Step[Reply]:
    """Has the agent of a space make a system call or an access; HANDLE_STALE when it dies meanwhile."""
    assert space.agent is not None, "only own spaces do what they are told"
    number = space.agent.send(operation, arguments, content)
    try:
        while True:
            reply = space.agent.take(number)
            if reply is not None:
                return reply
            yield WaitFor(reply_key(space.pid))
    except EOFError:
        ended(state, space, "its process died")
        raise gone(space) from None


def advise(state: State, space: KernelSpace, ranges: Sequence[tuple[int, int]], advice: int) -> Step[int]:
    """Gives advice on ranges of any space from outside; returns bytes advised, or the error. It may take long."""
    result: int = yield Aside(state.kernel.processes.advising(space.pid, ranges, advice))
    if state.spaces.find(space.id) is not space:
        raise gone(space)
    return result


def regions(state: State, space: KernelSpace, sizes: bool = False) -> list[Region]:
    """Returns the regions of a space, with their sizes and flags if asked for; the agent itself is left out."""
    text = state.kernel.processes.text(space.pid, "smaps" if sizes else "maps")
    if isinstance(text, int):
        raise refused_by_kernel(state, space, text)
    found = parse(text)
    return found if space.agent is None else list(outside(found, AGENT_START, AGENT_END))


def faults(state: State, space: KernelSpace) -> Faults:
    """Returns the faults of a space's process; those that the agent had for itself are left out."""
    text = state.kernel.processes.text(space.pid, "stat")
    if isinstance(text, int):
        raise refused_by_kernel(state, space, text)
    found = parse_faults(text)
    return replace(found, minor=max(found.minor - space.own_faults, 0))


def words(state: State, space: KernelSpace, first: int, count: int) -> Sequence[int]:
    """Returns the page map's words of `count` pages, 0 beyond the end."""
    found = state.kernel.processes.pages(space.pid, first, count)
    if isinstance(found, int):
        raise refused_by_kernel(state, space, found)
    return [*found, *([0] * (count - len(found)))]


def word(state: State, space: KernelSpace, address: int) -> int:
    """Returns the page map's word of an address; 0 outside the lower half."""
    return words(state, space, address >> 12, 1)[0] if address < 1 << 47 else 0


def refused_by_kernel(state: State, space: KernelSpace, error: int) -> LaminaError:
    """Returns what it means that a process cannot be looked at."""
    if -error in (errno.EPERM, errno.EACCES):
        return not_traceable(space.pid)
    ended(state, space, "its process is gone")
    return gone(space)


def not_traceable(pid: int) -> PermissionDenied:
    """Returns the error of a process whose memory we may not see."""
    return PermissionDenied(
        f"The memory of process {pid} may not be read by this service.",
        reason="PROCESS_NOT_TRACEABLE",
        next_step="Run the service as the owner of the process, or with CAP_SYS_PTRACE; kernel threads have no space.",
    )


def not_pageable(pid: int) -> PermissionDenied:
    """Returns the error of a process whose pages we may not send out, though we may see them."""
    return PermissionDenied(
        f"The memory of process {pid} may not be paged out by this service.",
        reason="PROCESS_NOT_PAGEABLE",
        next_step="Run the service with CAP_SYS_NICE, which the kernel wants of who pages out another process.",
    )


def covers_agent(start: int, end: int) -> bool:
    """Returns whether a range touches the agent itself."""
    return start < AGENT_END and end > AGENT_START


def keep_off_agent(state: State, space: KernelSpace, start: int, end: int) -> None:
    """Refuses a range that touches the agent, which is not mapped as far as callers go: RANGE_NOT_MAPPED."""
    if space.agent is not None and covers_agent(start, end):
        check_mapped(state, space, start, end)


def check_mapped(state: State, space: KernelSpace, start: int, end: int) -> list[Region]:
    """Returns the regions of a space when they cover a range; RANGE_NOT_MAPPED with the first address they do not."""
    found = regions(state, space)
    missing = hole(found, start, end)
    if missing is not None:
        raise not_mapped(missing)
    return found


def not_mapped(address: int) -> NotFound:
    """Returns the error of a range that is not mapped as a whole."""
    return NotFound(
        f"{address:#x} is not mapped.",
        reason="RANGE_NOT_MAPPED",
        next_step="Map the whole range first.",
        address=address,
    )


def in_use(start: int, end: int) -> AlreadyExists:
    """Returns the error of a range where something else is."""
    return AlreadyExists(
        f"Something is mapped within {start:#x}-{end:#x}.",
        reason="RANGE_IN_USE",
        next_step="Unmap it, set replace, or leave the choice of the address to the MMU.",
    )


def not_mappable(start: int, end: int) -> InvalidArgument:
    """Returns the error of a range where no process may map anything."""
    return InvalidArgument(
        f"{start:#x}-{end:#x} is not a range that a space of this engine may use.",
        reason="ADDRESS_NOT_MAPPABLE",
        next_step=f"Take addresses of the lower half from {AGENT_END:#x} on.",
    )


def failed(what: str, result: int) -> LaminaError:
    """Returns an error of the kernel that the contract has no name for."""
    name, text = errno.errorcode.get(-result, str(-result)), os.strerror(-result)
    return FailedPrecondition(
        f"The kernel refused to {what}: {text}.",
        reason="KERNEL_REFUSED",
        next_step="The manual page of the system call says why it may.",
        errno=name,
    )


def exhausted(reason: str, text: str, next_step: str) -> ResourceExhausted:
    """Returns the error of something that there is no more of."""
    return ResourceExhausted(text, reason=reason, next_step=next_step)


def no_memory(what: str) -> ResourceExhausted:
    """Returns the error of a kernel that has no memory for something."""
    return exhausted("NO_FREE_FRAME", f"The kernel has no memory to {what}.", "End something, or raise a limit.")
