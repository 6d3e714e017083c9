"""Copying between the kernel and a process: page by page through its tables, faulting in what is not there.

Every address comes from the program. A bad one is EFAULT, never more.
"""

from __future__ import annotations

import errno
import struct
from typing import Protocol

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.effects import Access, FaultIn, FaultOutcome, FaultResult
from lamina_container_runtime.engines.model.kernel.abi import Errno
from lamina_container_runtime.engines.model.kernel.memory.address_space import AddressSpace
from lamina_container_runtime.engines.model.kernel.waiting import Sleeper, wait
from lamina_kit.effects import NeedFault, Step
from lamina_kit.errors import InvalidArgument, OutOfRange

PIECE = 1 << 20
"""Most bytes of one copy; larger ones are done in pieces."""


class Memory(Protocol):
    """User memory by the root of its tables (`lamina_kit.bus.user_memory.UserMemory`)."""

    def read(self, root: int, va: int, n: int) -> bytes:
        """Returns bytes or raises `NeedFault`."""

    def write(self, root: int, va: int, data: bytes | bytearray | memoryview) -> None:
        """Stores bytes or raises `NeedFault`."""

    def cstring(self, root: int, va: int, limit: int) -> bytes:
        """Returns the bytes before a zero byte or raises `NeedFault`."""


class Toucher(Sleeper, Protocol):
    """The thread whose memory is read or written, as copies and faults know it."""

    @property
    def memory(self) -> AddressSpace:
        """The address space of its process."""

    @property
    def user_memory(self) -> Memory:
        """The memory that all address spaces are in."""

    def count_fault(self, major: bool) -> None:
        """Counts a fault that made an access possible."""

    def out_of_memory(self, result: FaultResult) -> WaitQueue | None:
        """Has a process killed; returns what is woken when that has ended, None when it has."""


def read(thread: Toucher, va: int, count: int) -> Step[bytes]:
    """Returns `count` bytes at `va`; EFAULT."""
    if count <= PIECE:
        return (yield from _read_piece(thread, thread.memory, va, count))
    parts = []
    for offset in range(0, count, PIECE):
        parts.append((yield from _read_piece(thread, thread.memory, va + offset, min(PIECE, count - offset))))
    return b"".join(parts)


def _read_piece(thread: Toucher, space: AddressSpace, va: int, count: int) -> Step[bytes]:
    memory = thread.user_memory
    while True:
        try:
            return memory.read(space.root, va, count)
        except NeedFault as fault:
            yield from fault_in(thread, space, fault)
        except OutOfRange:
            raise Errno(errno.EFAULT) from None


def write(thread: Toucher, va: int, data: bytes) -> Step[None]:
    """Stores bytes at `va`; EFAULT."""
    space = thread.memory
    memory = thread.user_memory
    for offset in range(0, len(data), PIECE):
        piece = data[offset : offset + PIECE]
        while True:
            try:
                memory.write(space.root, va + offset, piece)
                break
            except NeedFault as fault:
                yield from fault_in(thread, space, fault)
            except OutOfRange:
                raise Errno(errno.EFAULT) from None


def fill(memory: Memory, space: AddressSpace, va: int, data: bytes) -> Step[None]:
    """Stores the first bytes of a space that no thread runs in yet; ENOMEM when there is no memory for them."""
    while True:
        try:
            memory.write(space.root, va, data)
            return
        except NeedFault as fault:
            result = yield FaultIn(space.space, fault.va, Access.WRITE)
            if result.outcome is not FaultOutcome.RESOLVED:
                raise Errno(errno.ENOMEM) from None


def cstring(thread: Toucher, va: int, limit: int = 4096) -> Step[str]:
    """Returns the text at `va`; EFAULT, or ENAMETOOLONG when it has `limit` bytes or more."""
    memory = thread.user_memory
    space = thread.memory
    while True:
        try:
            return memory.cstring(space.root, va, limit - 1).decode(errors="surrogateescape")
        except NeedFault as fault:
            yield from fault_in(thread, space, fault)
        except OutOfRange:
            raise Errno(errno.EFAULT) from None
        except InvalidArgument:
            raise Errno(errno.ENAMETOOLONG) from None


def words(thread: Toucher, va: int, count: int) -> Step[tuple[int, ...]]:
    """Returns `count` 64-bit words at `va`; EFAULT."""
    data = yield from read(thread, va, 8 * count)
    return struct.unpack(f"<{count}Q", data)


def vector(thread: Toucher, va: int, budget: int) -> Step[tuple[list[bytes], int]]:
    """Returns the strings of a null-terminated vector of pointers and the bytes left of `budget`.

    E2BIG when they pass the budget, EFAULT. A null vector is an empty one, as Linux has it for execve.
    """
    found: list[bytes] = []
    while va:
        (pointer,) = yield from words(thread, va, 1)
        if not pointer:
            break
        try:
            text = yield from cstring(thread, pointer, min(budget, 131072))
        except Errno as error:
            raise Errno(errno.E2BIG if error.number == errno.ENAMETOOLONG else error.number) from None
        found.append(text.encode(errors="surrogateescape"))
        budget -= len(found[-1]) + 9
        if budget <= 0:
            raise Errno(errno.E2BIG)
        va += 8
    return found, budget


def fault_in(thread: Toucher, space: AddressSpace, fault: NeedFault) -> Step[None]:
    """Makes one access possible; EFAULT when it is not allowed or no memory can be had (the thread is killed then)."""
    access = Access.WRITE if fault.write else Access.READ
    if not (yield from resolve_fault(thread, space, fault.va, access)):
        raise Errno(errno.EFAULT)


def resolve_fault(thread: Toucher, space: AddressSpace, va: int, access: Access) -> Step[bool]:
    """Asks the MMU for a page. Returns False when the access is not allowed, or the thread dies of lack of memory.

    Without memory the process that the MMU names is killed, and the fault is tried again when it has ended.
    """
    while True:
        result: FaultResult = yield FaultIn(space.space, va, access)
        if result.outcome is FaultOutcome.RESOLVED:
            thread.count_fault(result.major)
            return True
        if result.outcome is FaultOutcome.REFUSED:
            return False
        ended = thread.out_of_memory(result)
        if thread.must_die:
            return False
        if ended is not None:
            yield from wait(thread, (ended,), "memory", killable_only=True)
