"""Calls to the layers below: the hardware and the MMU, as the effects of the engine need them.

Every object made below belongs to this runtime's session there. Errors of a call are raised as the kit's classes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from lamina.common.v1 import access_pb2, handle_pb2
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc

from lamina_container_runtime.domain.containers.resources import Resources
from lamina_container_runtime.engines.model import effects
from lamina_container_runtime.engines.model.effects import (
    Access,
    ContextRef,
    FaultOutcome,
    FaultResult,
    Handle,
    MappingInfo,
    ObjectRef,
    SpaceRef,
)
from lamina_container_runtime.engines.model.kernel.abi import PROT_EXEC, PROT_READ, PROT_WRITE
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import RunPage
from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError, NotFound
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import Channel
from lamina_kit.rpc.retry import Retry, is_lost

T = TypeVar("T")
_PIECE = 1 << 20
_ALL_EXCEPTIONS = (1 << 32) - 1
_ACCESS = {
    Access.READ: access_pb2.ACCESS_READ,
    Access.WRITE: access_pb2.ACCESS_WRITE,
    Access.EXECUTE: access_pb2.ACCESS_EXECUTE,
}
_REFUSED = mmu_pb2.FaultResponse.OUTCOME_SEGMENTATION_FAULT
_NO_MEMORY = mmu_pb2.FaultResponse.OUTCOME_OUT_OF_MEMORY
_READ = (mmu_pb2.FaultResponse.OUTCOME_SWAPPED_IN, mmu_pb2.FaultResponse.OUTCOME_SUPPLIED)
_RESOLVED = FaultResult(FaultOutcome.RESOLVED)
_RESOLVED_MAJOR = FaultResult(FaultOutcome.RESOLVED, major=True)


class Clients:
    """The two layers below, as this runtime calls them. `record` writes the event log."""

    def __init__(
        self,
        hardware: Channel,
        mmu: Channel,
        sessions: tuple[OwnerSession, OwnerSession],
        bus: MemoryBus,
        record: Callable[..., object],
        clock: Clock,
        rng: Rng,
    ) -> None:
        self.cpu = hardware_pb2_grpc.CpuStub(hardware)
        self._hosts = hardware_pb2_grpc.HostsStub(hardware)
        self._spaces = mmu_pb2_grpc.SpacesStub(mmu)
        self._objects = mmu_pb2_grpc.ObjectsStub(mmu)
        self._groups = mmu_pb2_grpc.GroupsStub(mmu)
        self._hardware_session, self._mmu_session = sessions
        self._bus = bus
        self._record = record
        self._rng = rng
        self._retry = Retry(clock, self._left_behind, passing=("RUN_GROUP_IN_USE", "GROUP_IN_USE"))

    async def close(self) -> None:
        """Ends what still tries to delete something below. Idempotent."""
        await self._retry.close()

    def use(self, bus: MemoryBus) -> None:
        """Goes on with another memory bus: the host has rebooted."""
        self._bus = bus

    @property
    def hardware_metadata(self) -> tuple[tuple[str, str], ...]:
        """The call metadata that name this runtime's session with the hardware."""
        return self._hardware_session.metadata

    async def host(self) -> hardware_pb2.Host:
        """Returns the host."""
        return await self._call(lambda: self._hosts.GetHost(hardware_pb2.GetHostRequest()))

    async def create_space(self, effect: effects.CreateSpace) -> SpaceRef:
        """Makes an address space."""
        wanted = mmu_pb2.Space(kind=mmu_pb2.Space.KIND_PROCESS, group=effect.group, label=effect.label)
        request = mmu_pb2.CreateSpaceRequest(space=wanted, request_id=self._rng.id("r"))
        return _space(await self._make(self._spaces.CreateSpace, request, self._mmu_session, self._unmake_space))

    async def fork_space(self, effect: effects.ForkSpace) -> SpaceRef:
        """Copies an address space."""
        request = mmu_pb2.ForkSpaceRequest(
            handle=_handle(effect.space.handle), label=effect.label, request_id=self._rng.id("r")
        )
        return _space(await self._make(self._spaces.ForkSpace, request, self._mmu_session, self._unmake_space))

    async def delete_space(self, effect: effects.DeleteSpace) -> None:
        """Deletes an address space."""
        request = mmu_pb2.DeleteSpaceRequest(handle=_handle(effect.space.handle))
        await self._delete(lambda: self._spaces.DeleteSpace(request), effect.space.name)

    async def map_range(self, effect: effects.MapRange) -> int:
        """Maps a range."""
        request = mmu_pb2.MapRangeRequest(
            handle=_handle(effect.space.handle),
            address=effect.address,
            size_bytes=effect.size,
            protection=_protection(effect.protection),
            fixed=effect.fixed,
            replace=effect.replace,
            object=_handle(effect.memory_object.handle) if effect.memory_object else None,
            object_offset=effect.offset,
            shared=effect.shared,
            grows_down=effect.grows_down,
            label=_label(effect.label),
            request_id=self._rng.id("r"),  # made twice, it would meet its own mapping, or leave one behind
        )
        return (await self._call(lambda: self._spaces.MapRange(request))).address

    async def unmap_range(self, effect: effects.UnmapRange) -> None:
        """Unmaps a range."""
        request = mmu_pb2.UnmapRangeRequest(
            handle=_handle(effect.space.handle), address=effect.address, size_bytes=effect.size
        )
        await self._call(lambda: self._spaces.UnmapRange(request))

    async def protect_range(self, effect: effects.ProtectRange) -> None:
        """Changes rights."""
        request = mmu_pb2.ProtectRangeRequest(
            handle=_handle(effect.space.handle),
            address=effect.address,
            size_bytes=effect.size,
            protection=_protection(effect.protection),
        )
        await self._call(lambda: self._spaces.ProtectRange(request))

    async def list_mappings(self, effect: effects.ListMappings) -> list[MappingInfo]:
        """Lists the mappings of a space."""
        request = mmu_pb2.ListMappingsRequest(handle=_handle(effect.space.handle))
        response = await self._call(lambda: self._spaces.ListMappings(request))
        return [_mapping(mapping) for mapping in response.mappings]

    async def fault_in(self, effect: effects.FaultIn) -> FaultResult:
        """Asks the MMU for a page."""
        request = mmu_pb2.FaultRequest(
            handle=_handle(effect.space.handle), address=effect.va, access=_ACCESS[effect.access], without_steps=True
        )
        try:
            response = await self._spaces.Fault(request)  # as `_call` does, without its detours: programs fault often
        except (grpc.aio.AioRpcError, LaminaError) as error:
            response = await self._retry.again(error, lambda: self._spaces.Fault(request))
        if response.outcome == _REFUSED:
            return FaultResult(FaultOutcome.REFUSED)
        if response.outcome == _NO_MEMORY:
            return FaultResult(FaultOutcome.OUT_OF_MEMORY, response.victim_space, response.limit_group)
        return _RESOLVED_MAJOR if response.outcome in _READ else _RESOLVED

    async def create_object(self, effect: effects.CreateObject) -> ObjectRef:
        """Makes a memory object and fills it; it is deleted again when that fails."""
        wanted = mmu_pb2.Object(size_bytes=effect.size, group=effect.group, label=_label(effect.label))
        request = mmu_pb2.CreateObjectRequest(object=wanted, request_id=self._rng.id("r"))
        made = await self._make(self._objects.CreateObject, request, self._mmu_session, self._unmake_object)
        found = ObjectRef(made.name, Handle(made.handle.id, made.handle.generation))
        if effect.data:
            try:
                await self._call(lambda: self._objects.WriteObject(_pieces(made.handle, effect.data)))
            except BaseException:
                await self.delete_object(effects.DeleteObject(found))
                raise
        return found

    async def delete_object(self, effect: effects.DeleteObject) -> None:
        """Deletes a memory object."""
        request = mmu_pb2.DeleteObjectRequest(handle=_handle(effect.memory_object.handle))
        await self._delete(lambda: self._objects.DeleteObject(request), effect.memory_object.name)

    async def create_context(self, effect: effects.CreateContext) -> ContextRef:
        """Makes an execution context that brings every system call and exception to this kernel."""
        wanted = hardware_pb2.Context(
            run_group=effect.run_group,
            coherence_domain=effect.domain,
            intercepts=hardware_pb2.Intercepts(exceptions=_ALL_EXCEPTIONS, syscall=True),
            label=_label(effect.label),
        )
        request = hardware_pb2.CreateContextRequest(context=wanted, request_id=self._rng.id("r"))
        made = await self._make(self.cpu.CreateContext, request, self._hardware_session, self._unmake_context)
        page = RunPage(self._bus.run_page(made.run_page))
        return ContextRef(made.name, Handle(made.handle.id, made.handle.generation), page)

    async def delete_context(self, effect: effects.DeleteContext) -> None:
        """Deletes an execution context."""
        request = hardware_pb2.DeleteContextRequest(handle=_handle(effect.context.handle))
        await self._delete(lambda: self.cpu.DeleteContext(request), effect.context.name)

    async def kick(self, context: ContextRef) -> None:
        """Stops the run of a context; one that is gone is passed over."""
        request = hardware_pb2.KickContextRequest(handle=_handle(context.handle))
        await self._delete(lambda: self.cpu.KickContext(request), context.name)

    async def create_groups(self, effect: effects.CreateGroups) -> tuple[str, str]:
        """Makes a run group and a memory group; the first is deleted again when the second cannot be made."""
        run_group = await self._create_run_group(effect)
        try:
            memory_group = await self._create_memory_group(effect)
        except BaseException:
            await self._delete_run_group(run_group)
            raise
        return run_group, memory_group

    async def delete_groups(self, effect: effects.DeleteGroups) -> None:
        """Deletes a run group and a memory group."""
        if effect.memory_group:
            request = mmu_pb2.DeleteGroupRequest(name=effect.memory_group)
            await self._delete(lambda: self._groups.DeleteGroup(request), effect.memory_group)
        if effect.run_group:
            await self._delete_run_group(effect.run_group)

    async def _create_run_group(self, effect: effects.CreateGroups) -> str:
        limits = effect.resources
        group = hardware_pb2.RunGroup(
            parent=effect.run_parent,
            weight=limits.cpu_weight,
            quota_ns=limits.cpu_quota_ns,
            period_ns=limits.cpu_period_ns,
        )
        request = hardware_pb2.CreateRunGroupRequest(
            run_group_id=effect.group_id, run_group=group, request_id=self._rng.id("r")
        )
        made = await self._make(self.cpu.CreateRunGroup, request, self._hardware_session, self._unmake_run_group)
        return made.name

    async def _create_memory_group(self, effect: effects.CreateGroups) -> str:
        group = mmu_pb2.Group(
            parent=effect.memory_parent,
            max_bytes=effect.resources.memory_limit_bytes,
            swap_max_bytes=_swap_limit(effect.resources),
        )
        request = mmu_pb2.CreateGroupRequest(group_id=effect.group_id, group=group, request_id=self._rng.id("r"))
        made = await self._make(self._groups.CreateGroup, request, self._mmu_session, self._unmake_group)
        return made.name

    async def _delete_run_group(self, name: str) -> None:
        request = hardware_pb2.DeleteRunGroupRequest(name=name)
        await self._delete(lambda: self.cpu.DeleteRunGroup(request), name)

    async def _call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Makes a call that may be made twice, and makes it again while its answer is lost."""
        return await self._retry.call(make)

    async def _make(
        self,
        method: Callable[..., Awaitable[T]],
        request: Any,
        session: OwnerSession,
        unmake: Callable[[T], Awaitable[Any]],
    ) -> T:
        """Makes an object below that belongs to a session. `request` has a request id, so it is made once.

        When nobody answers for good, whatever may have been made is deleted in the background.
        """

        def call() -> Awaitable[T]:
            return method(request, metadata=session.metadata)

        async def undo() -> None:
            await unmake(await call())

        try:
            return await self._retry.call(call)
        except LaminaError as error:
            if is_lost(error):
                self._retry.later(type(request).__name__, undo)
            raise
        except asyncio.CancelledError:
            self._retry.later(type(request).__name__, undo)
            raise

    def _unmake_space(self, made: mmu_pb2.Space) -> Awaitable[Any]:
        return self._spaces.DeleteSpace(mmu_pb2.DeleteSpaceRequest(handle=made.handle))

    def _unmake_object(self, made: mmu_pb2.Object) -> Awaitable[Any]:
        return self._objects.DeleteObject(mmu_pb2.DeleteObjectRequest(handle=made.handle))

    def _unmake_group(self, made: mmu_pb2.Group) -> Awaitable[Any]:
        return self._groups.DeleteGroup(mmu_pb2.DeleteGroupRequest(name=made.name))

    def _unmake_context(self, made: hardware_pb2.Context) -> Awaitable[Any]:
        return self.cpu.DeleteContext(hardware_pb2.DeleteContextRequest(handle=made.handle))

    def _unmake_run_group(self, made: hardware_pb2.RunGroup) -> Awaitable[Any]:
        return self.cpu.DeleteRunGroup(hardware_pb2.DeleteRunGroupRequest(name=made.name))

    async def _delete(self, make: Callable[[], Awaitable[object]], name: str) -> None:
        """Deletes an object below. One that is gone is as wished; while nobody answers the background goes on with it.

        What cannot be deleted is left to the session's end, which frees all that this runtime owns, and is recorded.
        """
        try:
            await self._retry.call(make)
        except LaminaError as error:
            if self._retry.will_pass(error):
                self._retry.later(name, make)
            else:
                self._left_behind(name, error)

    def _left_behind(self, name: str, error: LaminaError) -> None:
        if not isinstance(error, NotFound) and error.reason != "HANDLE_STALE":
            self._record(name, "object.left_behind", reason=error.reason, message=error.message)


def _handle(handle: Handle) -> handle_pb2.Handle:
    return handle_pb2.Handle(id=handle.id, generation=handle.generation)


def _space(space: mmu_pb2.Space) -> SpaceRef:
    return SpaceRef(space.name, Handle(space.handle.id, space.handle.generation), space.root_address)


def _protection(bits: int) -> mmu_pb2.Protection:
    return mmu_pb2.Protection(
        read=bool(bits & PROT_READ), write=bool(bits & PROT_WRITE), execute=bool(bits & PROT_EXEC)
    )


def _mapping(mapping: mmu_pb2.Mapping) -> MappingInfo:
    rights = mapping.protection
    return MappingInfo(
        mapping.start,
        mapping.end,
        (PROT_READ if rights.read else 0) | (PROT_WRITE if rights.write else 0) | (PROT_EXEC if rights.execute else 0),
        mapping.shared,
        mapping.object_offset,
        mapping.label,
        mapping.resident_pages,
        not mapping.object,
    )


def _label(text: str) -> str:
    """Returns a label as a message can carry it: names of files need not be UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")[:127]


def _swap_limit(limits: Resources) -> int | None:
    """Returns the bound on swap; None when none is wanted, or memory has none: then the host may swap as it likes."""
    if limits.swap_limit_bytes < 0:
        return None
    return limits.swap_limit_bytes if limits.memory_limit_bytes or limits.swap_limit_bytes else None


async def _pieces(handle: handle_pb2.Handle, data: bytes) -> AsyncIterator[mmu_pb2.WriteObjectRequest]:
    for offset in range(0, len(data), _PIECE):
        yield mmu_pb2.WriteObjectRequest(handle=handle, offset=offset, data=data[offset : offset + _PIECE])
