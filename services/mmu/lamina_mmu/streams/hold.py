"""One holder's stream (ADR 0002): what it says goes to the engine, what the engine's outbox has goes to it.

Reading never waits for writing, and no want is waited for before the next request is read: the eviction that a want
causes may need this very holder's acknowledgement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from lamina.mmu.v1 import mmu_pb2 as pb

from lamina_kit.effects import WaitFor
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_mmu.convert import hold as convert_hold
from lamina_mmu.convert import mmu
from lamina_mmu.domain.effects import outbox_key
from lamina_mmu.domain.hold import Hold
from lamina_mmu.domain.session import Session
from lamina_mmu.host import MmuHost


class HoldStream:
    """Serves one `Hold` call."""

    def __init__(self, host: MmuHost, requests: AsyncIterator[pb.HoldRequest], session: Session) -> None:
        self._host = host
        self._requests = requests
        self._session = session

    async def responses(self) -> AsyncIterator[pb.HoldResponse]:
        """Yields what the MMU says, until the stream ends; then all grants are void."""
        hold = await self._open()
        reader = self._host.spawn(self._read(hold))
        try:
            while not hold.closing:
                while hold.outbox:
                    yield convert_hold.response(*hold.outbox.popleft())
                if not hold.closing:
                    await self._host.perform(WaitFor(outbox_key(hold.id)))
            if hold.ended is not None:
                raise hold.ended
        finally:
            reader.cancel()
            await self._host.finish(self._host.engine.end_hold(hold, None))

    async def _open(self) -> Hold:
        async for request in self._requests:
            if request.WhichOneof("request") == "open":
                opened = request.open
                owner = self._session.owner or "no session"
                return self._host.engine.open_hold(mmu.handle(opened.handle), opened.eptp, owner)
            break
        raise FailedPrecondition(
            "The first request of the stream did not open a hold.",
            reason="HOLD_NOT_OPENED",
            next_step="Send open first, once, then wants and answers.",
        )

    async def _read(self, hold: Hold) -> None:
        """Takes what the holder says; the end of its stream, or a wrong request, ends the hold."""
        error: LaminaError | None = None
        try:
            async for request in self._requests:
                self._take(hold, request)
        except LaminaError as refused:
            error = refused
        await self._end(hold, error)

    def _take(self, hold: Hold, request: pb.HoldRequest) -> None:
        kind = request.WhichOneof("request")
        if kind == "want":
            self._host.spawn(self._answer(hold, request.want))
        elif kind == "acknowledge":
            bits = convert_hold.bits(request.acknowledge.pages)
            self._host.engine.acknowledge(hold, request.acknowledge.revocation, bits)
        elif kind == "ages":
            self._host.engine.acknowledge(hold, request.ages.sequence, convert_hold.bits(request.ages.pages))
        elif kind == "want_extent":
            convert_hold.check_extent(request.want_extent)
            self._host.spawn(self._answer_extent(hold, request.want_extent))
        else:
            raise FailedPrecondition(
                "The hold is open already, or the request is empty.",
                reason="HOLD_NOT_OPENED",
                next_step="Send open first, once, then wants and answers.",
            )

    async def _answer(self, hold: Hold, want: pb.HoldWant) -> None:
        """Answers one want; what goes wrong with it ends the hold."""
        try:
            access = mmu.access(want.access)
            await self._host.drive(self._host.engine.want(hold, want.sequence, want.address, access))
        except LaminaError as error:
            await self._end(hold, error)

    async def _answer_extent(self, hold: Hold, want: pb.HoldWantExtent) -> None:
        """Answers one want of an extent; what goes wrong with it ends the hold."""
        engine = self._host.engine
        try:
            access = mmu.access(want.access)
            step = engine.want_extent(hold, want.sequence, want.address, access, want.extent_bytes, want.pinned)
            await self._host.drive(step)
        except LaminaError as error:
            await self._end(hold, error)

    async def _end(self, hold: Hold, error: LaminaError | None) -> None:
        await self._host.finish(self._host.engine.end_hold(hold, error))
