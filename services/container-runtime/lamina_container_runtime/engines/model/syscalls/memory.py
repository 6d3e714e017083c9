"""Memory: brk, mmap, munmap, mprotect and their kin. The MMU keeps the mappings."""

from __future__ import annotations

import errno

from lamina_container_runtime.engines.model.effects import (
    CreateObject,
    DeleteObject,
    ListMappings,
    MappingInfo,
    MapRange,
    ObjectRef,
    ProtectRange,
    UnmapRange,
)
from lamina_container_runtime.engines.model.kernel.abi import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    Errno,
    signed,
)
from lamina_container_runtime.engines.model.kernel.files.open_file import OpenFile, RegularFile
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError
from lamina_kit.paging import PAGE_MASK, is_user, page_up

CALLS = Calls()
_PROT_ALL = PROT_READ | PROT_WRITE | PROT_EXEC
_MADV_DONTNEED = 4


@CALLS.add("brk")
def brk(thread: Thread, address: int) -> Step[int]:
    """brk(2): returns the new end of the heap, or the old one when it cannot be moved there."""
    memory = thread.memory
    if not memory.brk_start <= address or not is_user(address):
        return memory.brk
    end = page_up(address)
    try:
        if end > memory.brk_mapped:
            yield MapRange(
                memory.space,
                memory.brk_mapped,
                end - memory.brk_mapped,
                PROT_READ | PROT_WRITE,
                fixed=True,
                label="[heap]",
            )
        elif end < memory.brk_mapped:
            yield UnmapRange(memory.space, end, memory.brk_mapped - end)
    except LaminaError as error:
        if error.code not in ("RESOURCE_EXHAUSTED", "ALREADY_EXISTS", "INVALID_ARGUMENT"):
            raise
        return memory.brk
    memory.brk_mapped = end
    memory.brk = address
    return address


@CALLS.add("mmap")
def mmap(thread: Thread, address: int, size: int, protection: int, flags: int, fd: int, offset: int) -> Step[int]:
    """mmap(2): anonymous memory, private or shared, and private mappings of files.

    A shared mapping of a file that could be written is refused (ENODEV): file contents are not pages of the MMU.
    """
    kind = flags & (MAP_SHARED | MAP_PRIVATE)
    size = page_up(size)
    if not size or not kind or offset & PAGE_MASK or protection & ~(_PROT_ALL | 0x03000000):
        raise Errno(errno.EINVAL)
    if size >= 1 << 47:
        raise Errno(errno.ENOMEM)
    fixed = bool(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))
    if fixed and (address & PAGE_MASK or not is_user(address, size)):
        raise Errno(errno.EINVAL if address & PAGE_MASK else errno.ENOMEM)
    memory_object: ObjectRef | None = None
    label = ""
    if not flags & MAP_ANONYMOUS:
        file = thread.process.fds.get(fd)
        memory_object, label = yield from _file_object(thread, file, kind, protection, offset, size)
    elif kind & MAP_SHARED:
        memory_object = yield CreateObject(size, b"", thread.process.container.memory_group, "[shared]")
        thread.memory.shares_memory = True
    try:
        found: int = yield MapRange(
            thread.memory.space,
            address if fixed else address & ~PAGE_MASK,
            size,
            protection & _PROT_ALL,
            fixed=fixed,
            replace=bool(flags & MAP_FIXED),
            memory_object=memory_object,
            shared=bool(flags & MAP_ANONYMOUS and kind & MAP_SHARED),
            grows_down=bool(flags & MAP_GROWSDOWN),
            label=label,
        )
    finally:
        if flags & MAP_ANONYMOUS and memory_object is not None:
            yield DeleteObject(memory_object)
    return found


def _file_object(
    thread: Thread, file: OpenFile, kind: int, protection: int, offset: int, size: int
) -> Step[tuple[ObjectRef, str]]:
    if not isinstance(file, RegularFile):
        raise Errno(errno.ENODEV if file.readable else errno.EACCES)
    if not file.readable:
        raise Errno(errno.EACCES)
    if kind & MAP_SHARED and (protection & PROT_WRITE or file.writable):
        raise Errno(errno.ENODEV)
    made = yield from thread.kernel.objects.pages(thread.process.container, file.file, file.path, offset, size)
    return made, file.path[-255:]


@CALLS.add("munmap")
def munmap(thread: Thread, address: int, size: int) -> Step[int]:
    """munmap(2)."""
    _check_range(address, size)
    yield UnmapRange(thread.memory.space, address, page_up(size))
    return 0


@CALLS.add("mprotect")
def mprotect(thread: Thread, address: int, size: int, protection: int) -> Step[int]:
    """mprotect(2)."""
    if not size:
        return 0
    if protection & ~_PROT_ALL:
        raise Errno(errno.EINVAL)
    if address & PAGE_MASK:
        raise Errno(errno.EINVAL)
    if not is_user(address, page_up(size)):
        raise Errno(errno.ENOMEM)
    yield ProtectRange(thread.memory.space, address, page_up(size), protection)
    return 0


@CALLS.add("madvise")
def madvise(thread: Thread, address: int, size: int, advice: int) -> Step[int]:
    """madvise(2): MADV_DONTNEED gives private anonymous memory back (EINVAL for other memory); other advice is nothing
    that this kernel could follow."""
    if address & PAGE_MASK:
        raise Errno(errno.EINVAL)
    end = address + page_up(size)
    if signed(advice, 32) != _MADV_DONTNEED or not size:
        return 0
    if not is_user(address, end - address):
        raise Errno(errno.ENOMEM)
    mappings: list[MappingInfo] = yield ListMappings(thread.memory.space)
    touched = [mapping for mapping in mappings if mapping.start < end and mapping.end > address]
    if any(mapping.shared or not mapping.anonymous for mapping in touched):
        raise Errno(errno.EINVAL)
    for mapping in touched:
        start, stop = max(address, mapping.start), min(end, mapping.end)
        yield MapRange(
            thread.memory.space,
            start,
            stop - start,
            mapping.protection,
            fixed=True,
            replace=True,
            label=mapping.label,
        )
    return 0


@CALLS.add("mlock", "munlock", "msync")
def lock(thread: Thread, address: int, size: int) -> int:
    """mlock(2) and the like: nothing of this kernel's depends on where a page is."""
    _check_range(address & ~PAGE_MASK, size or 1)
    return 0


def _check_range(address: int, size: int) -> None:
    if address & PAGE_MASK or not size or not is_user(address, page_up(size)):
        raise Errno(errno.EINVAL)
