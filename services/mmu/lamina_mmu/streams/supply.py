"""One supplier's stream: what it says goes to the engine, what the engine asks goes to it.

Reading never waits for writing. Each question has a watch, begun before it is sent: a supplier that does not read is
as silent as one that does not answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from lamina.mmu.v1 import supply_pb2 as pb

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_mmu.convert import supply as convert_supply
from lamina_mmu.domain.effects import supply_outbox_key
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.supply import Opened, Supply
from lamina_mmu.host import MmuHost


class SupplyStream:
    """Serves one `Supply` call."""

    def __init__(self, host: MmuHost, requests: AsyncIterator[pb.SupplyRequest], session: Session) -> None:
        self._host = host
        self._requests = requests
        self._session = session

    async def responses(self) -> AsyncIterator[pb.SupplyResponse]:
        """Yields what the MMU asks, until the stream ends; then its objects have no supplier."""
        engine = self._host.engine
        supply = engine.open_supply(self._session.owner or "no session")
        try:
            await self._open(supply)
            reader = self._host.spawn(self._read(supply))
            try:
                while not supply.closing:
                    while supply.outbox and not supply.closing:
                        position, message = supply.outbox.popleft()
                        if not isinstance(message, Opened):
                            self._host.spawn(self._host.drive(engine.watch_supply(supply, message.sequence)))
                        yield convert_supply.response(position, message)
                    if not supply.closing:
                        await self._host.perform(WaitFor(supply_outbox_key(supply.id)))
            finally:
                reader.cancel()
            if supply.ended is not None:
                raise supply.ended
        finally:
            engine.end_supply(supply, None)

    async def _open(self, supply: Supply) -> None:
        async for request in self._requests:
            if request.WhichOneof("request") == "open":
                self._take_open(supply, request.open)
                return
            break
        raise FailedPrecondition(
            "The first request of the stream did not name objects to supply.",
            reason="SUPPLY_NOT_OPENED",
            next_step="Send open first, then answers.",
        )

    async def _read(self, supply: Supply) -> None:
        """Takes what the supplier says; the end of its stream, or a wrong request, ends the supply."""
        error: LaminaError | None = None
        try:
            async for request in self._requests:
                self._take(supply, request)
        except LaminaError as refused:
            error = refused
        self._host.engine.end_supply(supply, error)

    def _take(self, supply: Supply, request: pb.SupplyRequest) -> None:
        engine, kind = self._host.engine, request.WhichOneof("request")
        if kind == "open":
            self._take_open(supply, request.open)
        elif kind == "filled":
            said = request.filled
            engine.filled(supply, said.sequence, said.data, said.pages, said.failure)
        elif kind == "kept":
            engine.kept(supply, request.kept.sequence, convert_supply.failure(request.kept.failure))
        elif kind == "invalidated":
            step = engine.invalidate(supply, *convert_supply.invalidated(request.invalidated))
            self._host.spawn(self._invalidate(supply, step))
        else:
            raise FailedPrecondition(
                "The request is empty.", reason="SUPPLY_NOT_OPENED", next_step="Send open, answers, or invalidations."
            )

    async def _invalidate(self, supply: Supply, step: Step[None]) -> None:
        """Drops what changed; what is wrong with the request ends the stream."""
        try:
            await self._host.drive(step)
        except LaminaError as error:
            self._host.engine.end_supply(supply, error)

    def _take_open(self, supply: Supply, opened: pb.SupplyOpen) -> None:
        objects, readahead = convert_supply.opened(opened)
        self._host.engine.supply_objects(supply, objects, opened.maps_memory, opened.keeps_writes, readahead)
