"""Memory objects of file contents: what makes processes of one program share its frames.

A segment becomes an object of its own pages: the bytes of the file around it, and zeroes behind its file part when its
memory part is longer (the rest of the bss is anonymous). Objects are found by what their bytes are: the digest of a
layer's file, or the version of a file of an upper layer; the container that wrote the latter pays for its object. The
least recently used ones are given back to the MMU; the
pages that processes map stay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol

from lamina_container_runtime.domain.elf import Segment
from lamina_container_runtime.domain.wait import Waiter, WaitQueue
from lamina_container_runtime.engines.model.effects import CreateObject, DeleteObject, ObjectRef, Wait
from lamina_container_runtime.engines.model.kernel.files.inode import FileInode
from lamina_container_runtime.engines.model.kernel.files.overlay import OverlayFile
from lamina_kit.effects import Step
from lamina_kit.paging import PAGE_SIZE, page_down, page_up

MAX_BYTES = 256 << 20


class Payer(Protocol):
    """The container that an object is made for, as far as objects know it."""

    container_id: str
    memory_group: str


class Objects:
    """The memory objects that the kernel keeps at hand, at most `limit` bytes of them."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[ObjectRef, int]] = OrderedDict()
        self._coming: dict[Hashable, WaitQueue] = {}
        self._bytes = 0

    def names(self) -> list[str]:
        """Returns the names of the objects at hand, least recently used first."""
        return [made.name for made, _ in self._kept.values()]

    def forget_all(self) -> None:
        """Forgets all objects: the MMU that had them is gone."""
        self._kept.clear()
        self._bytes = 0

    def segment(self, container: Payer, file: FileInode, path: str, number: int, segment: Segment) -> Step[ObjectRef]:
        """Returns the object with the file part of a program's segment of that number."""
        start = page_down(segment.offset)
        lead = segment.offset - start
        size = page_up(lead + segment.file_size)
        end = segment.offset + segment.file_size if segment.mem_size > segment.file_size else start + size
        key = (*content_key(container, file), "segment", number)
        group = _payer(container, file)
        return (yield from self._get(key, file, start, end - start, size, group, path))

    def pages(self, container: Payer, file: FileInode, path: str, offset: int, size: int) -> Step[ObjectRef]:
        """Returns an object with `size` bytes of a file from `offset` (page aligned), for a private mapping of it.

        It ends with the file's last page: what a mapping has behind that is a fault. It has one page at least.
        """
        size = min(size, max(PAGE_SIZE, page_up(file.size - offset)))
        key = (*content_key(container, file), "pages", offset, size)
        return (yield from self._get(key, file, offset, size, page_up(size), _payer(container, file), path))

    def _get(
        self, key: Hashable, file: FileInode, offset: int, count: int, size: int, group: str, label: str
    ) -> Step[ObjectRef]:
        while key in self._coming:
            waiter = Waiter()
            self._coming[key].add(waiter)
            yield Wait(waiter, None)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        self._coming[key] = WaitQueue()
        try:
            made: ObjectRef = yield CreateObject(size, file.read(offset, count), group, label[-255:])
        finally:
            self._coming.pop(key).wake()
        self._kept[key] = (made, size)
        self._bytes += size
        while self._bytes > self._limit and len(self._kept) > 1:
            _, (old, old_size) = self._kept.popitem(last=False)
            self._bytes -= old_size
            yield DeleteObject(old)
        return made

    def forget_container(self, container: Payer) -> Step[None]:
        """Deletes the objects of files of a container's upper layer."""
        mine = [key for key in self._kept if isinstance(key, tuple) and key[0] == container.container_id]
        for key in mine:
            memory_object, size = self._kept.pop(key)
            self._bytes -= size
            yield DeleteObject(memory_object)


def _payer(container: Payer, file: FileInode) -> str:
    """Returns the memory group that an object of a file is charged to; none for a layer's file, which all share."""
    return "" if content_key(container, file)[0] == "" else container.memory_group


def content_key(container: Payer, file: FileInode) -> tuple[Hashable, ...]:
    """Returns what identifies the bytes of a file: a digest, or container, inode and version."""
    if isinstance(file, OverlayFile) and file.data is None:
        return ("", file.digest)
    return (container.container_id, file.fs.device, file.ino, file.version)
