"""Objects of the `linux` engine: memory files."""

from __future__ import annotations

import errno

from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError, OutOfRange
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.views import ObjectView
from lamina_mmu.engines.interface import Key
from lamina_mmu.engines.linux import agents
from lamina_mmu.engines.linux.groups import GroupCalls
from lamina_mmu.engines.linux.refusals import refuse
from lamina_mmu.engines.linux.state import ROOT_GROUP, KernelObject


class ObjectCalls(GroupCalls):
    """Implements the parts of the engine's interface about objects."""

    def create_object(self, size: int, group: str, label: str, session: Session, request: str) -> Step[ObjectView]:
        """Makes a memory file. Who touches a page pays for it, as the kernel has it."""
        if self.group_of(group) != ROOT_GROUP:
            raise refuse("object-group", "charge objects to a group: who touches a page first pays for it")

        def make() -> Step[Handle]:
            yield from ()
            contents = self.state.kernel.contents
            content = contents.create("lamina-object", size)
            if content < 0:
                raise self._failed(content)
            entity = KernelObject(content, contents.inode(content), size, ROOT_GROUP, label, session)
            self.state.objects.add(entity)
            self.state.inodes[entity.inode] = entity.number
            self.state.ports.record(self.state.names.object(entity.number), "object.created", size=size, label=label)
            return entity.handle

        handle = yield from self.state.once(request, ("object", size, group, label), make)
        return self.object(handle)

    def write_object(self, handle: Handle, offset: int, data: bytes) -> Step[int]:
        """Stores bytes."""
        yield from ()
        entity = self.state.objects.get(handle)
        self._check_end(entity, offset, len(data))
        done = self.state.kernel.contents.write(entity.content, offset, data)
        if done < 0:
            raise self._failed(done)
        return done

    def delete_object(self, handle: Handle) -> None:
        """Deletes an object."""
        self.state.drop_object(self.state.objects.get(handle))

    def object(self, key: Key) -> ObjectView:
        """Returns one object."""
        return self._object_view(self.state.object(key))

    def objects(self, after: int, count: int) -> list[ObjectView]:
        """Returns objects by number."""
        return [self._object_view(entity) for entity in self.state.objects.after(after, count)]

    def content_end(self, handle: Handle, offset: int, size: int) -> int:
        """Returns where a range ends."""
        entity = self.state.objects.get(handle)
        self._check_end(entity, offset, size)
        return offset + size if size else entity.size

    def read_object(self, handle: Handle, offset: int, size: int) -> Step[list[tuple[int, bytes]]]:
        """Returns what was written within a range, in pieces of pages."""
        yield from ()
        entity, contents = self.state.objects.get(handle), self.state.kernel.contents
        pieces = contents.written(entity.content, offset, offset + size)
        return [(start, contents.read(entity.content, start, end - start)) for start, end in pieces]

    def resize_object(self, handle: Handle, size: int) -> Step[ObjectView]:
        """Changes the size, as ftruncate(2) does."""
        yield from ()
        entity = self.state.objects.get(handle)
        result = self.state.kernel.contents.resize(entity.content, size)
        if result < 0:
            raise self._failed(result)
        entity.size = size
        return self._object_view(entity)

    def sync_object(self, handle: Handle, offset: int, size: int, drop: bool) -> Step[tuple[int, int]]:
        """Does nothing: memory files lie on no disk, and none of their pages is clean."""
        yield from ()
        self._check_end(self.state.objects.get(handle), offset, size)
        return 0, 0

    def _object_view(self, entity: KernelObject) -> ObjectView:
        contents = self.state.kernel.contents
        held, resident = contents.blocks(entity.content), contents.resident(entity.content, entity.size)
        return ObjectView(
            entity.number, entity.handle, entity.size, entity.group, entity.label, resident, held - resident
        )

    def _check_end(self, entity: KernelObject, offset: int, size: int) -> None:
        if offset + size > entity.size:
            raise OutOfRange(
                f"{offset} to {offset + size} is beyond the {entity.size} bytes of the object o-{entity.number}.",
                reason="BEYOND_OBJECT",
                next_step="Resize the object first.",
            )

    def _failed(self, result: int) -> LaminaError:
        if -result in (errno.ENOSPC, errno.ENOMEM):
            return agents.no_memory("hold the object")
        return agents.failed("do that with a memory file", result)
