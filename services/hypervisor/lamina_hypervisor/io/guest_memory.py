"""Guest memory, over the MMU's contract: spaces, table frames, and the hold of each VM.

The MMU's messages on a hold stream are handled strictly in order: each is given to the engine, and only when the engine
has done with it does the vCPU that asked go on. Writing never waits for reading.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
from lamina.common.v1 import access_pb2, handle_pb2
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc

from lamina_hypervisor.domain.exits import exits
from lamina_hypervisor.domain.memory.addresses import Frame, Gpa
from lamina_hypervisor.domain.memory.ept import PageBits
from lamina_hypervisor.domain.memory.hold import Age, Granted, HoldMessage, Opened, Refused, Revocation
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.effects import Space
from lamina_hypervisor.io.session_calls import SessionCalls
from lamina_kit.errors import LaminaError, Unavailable
from lamina_kit.rpc.status import rpc_error

Deliver = Callable[[int, HoldMessage], Awaitable[None]]
Lost = Callable[[LaminaError], None]

_ACCESS = {
    exits.READ: access_pb2.ACCESS_READ,
    exits.WRITE: access_pb2.ACCESS_WRITE,
    exits.EXECUTE: access_pb2.ACCESS_EXECUTE,
}


class GuestMemory:
    """Performs the memory effects of the engine."""

    def __init__(self, channel: grpc.aio.Channel, calls: SessionCalls) -> None:
        self._spaces = mmu_pb2_grpc.SpacesStub(channel)
        self._frames = mmu_pb2_grpc.FramesStub(channel)
        self._calls = calls
        self._session = calls.session
        self._holds: dict[str, Hold] = {}

    async def create_space(self, effect: effects.CreateSpace) -> Space:
        """Makes guest RAM: a space with one mapping from address 0."""
        kind = mmu_pb2.Space.KIND_GUEST_RAM
        space = mmu_pb2.Space(kind=kind, group=effect.group, label=effect.label)
        request = mmu_pb2.CreateSpaceRequest(space=space)
        made = await self._calls.make(self._spaces.CreateSpace, request, self._unmake_space)
        result = Space(made.handle.id, made.handle.generation, made.name)
        try:
            await self._calls.call_once(self._spaces.MapRange, _map_request(result, effect))
        except LaminaError:
            await self.delete_space(effects.DeleteSpace(result))
            raise
        return result

    async def delete_space(self, effect: effects.DeleteSpace) -> None:
        """Frees guest RAM."""
        request = mmu_pb2.DeleteSpaceRequest(handle=_handle(effect.space))
        await self._calls.delete(effect.space.name, self._spaces.DeleteSpace, request)

    async def write_ram(self, effect: effects.WriteRam) -> None:
        """Writes bytes to guest RAM."""
        request = mmu_pb2.WriteSpaceRequest(
            handle=_handle(effect.space), address=effect.gpa, data=effect.data, force=True
        )
        await self._calls.call(self._spaces.WriteSpace, request)

    async def allocate_tables(self, effect: effects.AllocateTables) -> list[Frame]:
        """Allocates zeroed frames for tables."""
        request = mmu_pb2.AllocateFramesRequest(count=effect.count, owner=effect.owner, group=effect.group)

        def give_back(answer: mmu_pb2.AllocateFramesResponse) -> Any:
            return self._frames.FreeFrames(mmu_pb2.FreeFramesRequest(frames=answer.frames, owner=effect.owner))

        answer = await self._calls.make(self._frames.AllocateFrames, request, give_back)
        return [Frame(frame) for frame in answer.frames]

    async def free_tables(self, effect: effects.FreeTables) -> None:
        """Gives frames back."""
        request = mmu_pb2.FreeFramesRequest(frames=effect.frames, owner=effect.owner)
        await self._calls.delete(effect.owner, self._frames.FreeFrames, request)

    async def open_hold(self, effect: effects.OpenHold, deliver: Deliver, lost: Lost) -> None:
        """Opens a VM's hold; returns once the MMU has confirmed it."""
        hold = Hold(self._spaces.Hold(metadata=self._session.metadata), deliver, lost)
        await hold.open(effect.space, effect.eptp)
        self._holds[effect.vm] = hold

    async def close_hold(self, effect: effects.CloseHold) -> None:
        """Closes a VM's hold."""
        hold = self._holds.pop(effect.vm, None)
        if hold is not None:
            await hold.close()

    async def want(self, effect: effects.Want) -> str:
        """Asks for a page; returns "" once it was granted and handled, or the reason of the refusal."""
        return await self._hold(effect.vm).want(effect.gpa, effect.access)

    async def acknowledge(self, effect: effects.Acknowledge) -> None:
        """Answers a revocation."""
        answer = mmu_pb2.HoldAcknowledge(revocation=effect.revocation, pages=_bits(effect.bits))
        self._hold(effect.vm).send(mmu_pb2.HoldRequest(acknowledge=answer))

    async def send_ages(self, effect: effects.SendAges) -> None:
        """Answers a request for accessed bits."""
        answer = mmu_pb2.HoldAges(sequence=effect.sequence, pages=_bits(effect.bits))
        self._hold(effect.vm).send(mmu_pb2.HoldRequest(ages=answer))

    async def close(self) -> None:
        """Closes all holds."""
        for vm in sorted(self._holds):
            await self._holds.pop(vm).close()

    def _hold(self, vm: str) -> Hold:
        hold = self._holds.get(vm)
        if hold is None:
            raise Unavailable(f"The hold of {vm} is closed.", reason="HOLD_CLOSED", next_step="Start the VM again.")
        return hold

    def _unmake_space(self, made: mmu_pb2.Space) -> Any:
        return self._spaces.DeleteSpace(mmu_pb2.DeleteSpaceRequest(handle=made.handle))


class Hold:
    """One hold stream. `lost` is called once when the MMU ends it, never for `close`.

    Whoever has something to say puts it into the outbox, which one task writes: a stream takes one write at a time.
    """

    def __init__(self, call: Any, deliver: Deliver, lost: Lost) -> None:
        self._call = call
        self._deliver = deliver
        self._lost = lost
        self._wants: dict[int, asyncio.Future[str]] = {}
        self._sequence = 0
        self._outbox: asyncio.Queue[mmu_pb2.HoldRequest] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: LaminaError | None = None

    async def open(self, space: Space, eptp: int) -> None:
        """Sends the opening and waits for its confirmation."""
        try:
            await self._call.write(mmu_pb2.HoldRequest(open=mmu_pb2.HoldOpen(handle=_handle(space), eptp=eptp)))
            first = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise rpc_error(error) from error
        if first is grpc.aio.EOF:
            raise _ended()
        await self._handle(first)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work, context=contextvars.Context()) for work in (self._read(), self._write())]

    def send(self, request: mmu_pb2.HoldRequest) -> None:
        """Has one message written, behind those that were sent before."""
        if self._ended is not None:
            raise self._ended
        self._outbox.put_nowait(request)

    async def want(self, gpa: Gpa, access: int) -> str:
        """Asks for a page and waits for the answer."""
        self._sequence += 1
        sequence = self._sequence
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._wants[sequence] = answer
        want = mmu_pb2.HoldWant(sequence=sequence, address=gpa, access=_ACCESS[access])
        try:
            self.send(mmu_pb2.HoldRequest(want=want))
            return await answer
        finally:
            self._wants.pop(sequence, None)

    async def close(self) -> None:
        """Ends the stream without a word to `lost`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._call.cancel()
        self._fail(_ended())

    async def _read(self) -> None:
        """Hands what the MMU says to the engine, message by message; its end is the end of the hold."""
        error: LaminaError
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                await self._handle(response)
            error = _ended()
        except grpc.aio.AioRpcError as ended:
            error = rpc_error(ended)
        except LaminaError as failed:
            error = failed
        self._fail(error)
        self._call.cancel()
        self._lost(error)

    async def _write(self) -> None:
        """Writes the outbox. When the stream is broken the reader meets the same end, and says why."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await self._call.write(await self._outbox.get())

    async def _handle(self, response: mmu_pb2.HoldResponse) -> None:
        message = parse(response)
        await self._deliver(response.position, message)
        if isinstance(message, Granted):
            self._answer(message.sequence, "")
        elif isinstance(message, Refused):
            self._answer(message.sequence, message.reason)

    def _answer(self, sequence: int, reason: str) -> None:
        waiter = self._wants.get(sequence)
        if waiter is not None and not waiter.done():
            waiter.set_result(reason)

    def _fail(self, error: LaminaError) -> None:
        self._ended = error
        for waiter in self._wants.values():
            if not waiter.done():
                waiter.set_exception(error)


def parse(response: mmu_pb2.HoldResponse) -> HoldMessage:
    """Returns what the MMU says."""
    kind = response.WhichOneof("response")
    if kind == "grant":
        grant = response.grant
        return Granted(grant.sequence, Gpa(grant.address), Frame(grant.frame), grant.writable, grant.executable)
    if kind == "refusal":
        outcome = mmu_pb2.FaultResponse.Outcome.Name(response.refusal.outcome)
        return Refused(response.refusal.sequence, outcome.removeprefix("OUTCOME_"))
    if kind == "revocation":
        taken = response.revocation
        return Revocation(taken.revocation, tuple(Gpa(address) for address in taken.addresses), taken.write_only)
    if kind == "age":
        return Age(response.age.sequence, tuple(Gpa(address) for address in response.age.addresses))
    return Opened()


def _map_request(space: Space, effect: effects.CreateSpace) -> mmu_pb2.MapRangeRequest:
    return mmu_pb2.MapRangeRequest(
        handle=_handle(space),
        address=0,
        size_bytes=effect.memory_bytes,
        protection=mmu_pb2.Protection(read=True, write=True, execute=True),
        fixed=True,
        label=effect.label,
    )


def _bits(pages: tuple[PageBits, ...]) -> list[mmu_pb2.PageBits]:
    return [mmu_pb2.PageBits(address=page.gpa, accessed=page.accessed, dirty=page.dirty) for page in pages]


def _handle(space: Space) -> handle_pb2.Handle:
    return handle_pb2.Handle(id=space.id, generation=space.generation)


def _ended() -> Unavailable:
    return Unavailable(
        "The memory layer ended the hold of a VM.",
        reason="HOLD_ENDED",
        next_step="Look at the memory layer's log; start the VM again once it serves.",
    )
