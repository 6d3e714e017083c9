"""One plugged-in policy's stream: news and questions to it, its answers to the engine.

Reading never waits for writing. Whoever waits for an answer waits in the engine, with a limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from lamina.mmu.v1 import policies_pb2 as pb

from lamina_kit.effects import WaitFor
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_mmu.convert import policies as convert
from lamina_mmu.domain.effects import plug_key
from lamina_mmu.domain.policies.plugged import News, Plug
from lamina_mmu.domain.session import Session
from lamina_mmu.host import MmuHost


class PlugStream:
    """Serves one `Plug` call."""

    def __init__(self, host: MmuHost, requests: AsyncIterator[pb.PlugRequest], session: Session) -> None:
        self._host = host
        self._requests = requests
        self._session = session
        self._named: dict[int, None] = {}

    async def responses(self) -> AsyncIterator[pb.PlugResponse]:
        """Yields what the MMU says, until the stream ends or the policy is unplugged."""
        if self._host.is_virtual:
            raise FailedPrecondition(
                "The clock is virtual: time would not go on while a program outside thinks.",
                reason="CLOCK_VIRTUAL",
                next_step="Install the policy as an entry point of the group lamina.policies instead.",
            )
        plug = await self._open()
        reader = self._host.spawn(self._read(plug))
        try:
            yield pb.PlugResponse(opened=pb.PlugOpened())
            while plug.is_open:
                while plug.outbox:
                    yield self._message(plug)
                if plug.is_open:
                    await self._host.perform(WaitFor(plug_key(plug.id)))
            if plug.closed is not None:
                raise plug.closed
        finally:
            reader.cancel()
            self._host.engine.close_plug(plug, None)

    def _message(self, plug: Plug) -> pb.PlugResponse:
        message = plug.take()
        name = ""
        if isinstance(message, News) and message.group not in self._named:
            self._named[message.group] = None
            name = self._host.names.group(self._host.engine.group_name(message.group))
        return convert.plug_message(message, name)

    async def _open(self) -> Plug:
        async for request in self._requests:
            if request.WhichOneof("request") == "open":
                name, summary, source = convert.plugged(request.open)
                owner = self._session.owner or "no session"
                return self._host.engine.open_plug(name, summary, source, owner)
            break
        raise self._not_opened("The first request of the stream did not plug a policy in.")

    def _not_opened(self, message: str) -> FailedPrecondition:
        return FailedPrecondition(
            message, reason="PLUG_NOT_OPENED", next_step="Send open first, once, then answers to questions."
        )

    async def _read(self, plug: Plug) -> None:
        """Takes answers; the end of the stream, or a wrong request, unplugs the policy."""
        error: LaminaError | None = None
        try:
            async for request in self._requests:
                if request.WhichOneof("request") != "victims":
                    raise self._not_opened("The policy is plugged in already, or the request is empty.")
                answer = request.victims
                self._host.engine.take_answer(plug, answer.sequence, convert.victims(answer))
        except LaminaError as refused:
            error = refused
        self._host.engine.close_plug(plug, error)
