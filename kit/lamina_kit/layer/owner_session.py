"""Owner sessions as the owner keeps them: one stream to a layer below, opened again when it breaks.

    session = await OwnerSession.open(channel, "h1/hypervisor", epoch=7, clock=clock, on_epoch=store.save_epoch)
    await stub.CreateSpace(request, metadata=session.metadata)      # belongs to h1/hypervisor
    session.on_lost(stop_using_contexts)
    session.on_reopened(claim_objects)                              # within 30 s, or they are freed

The end below, and what happens there, is `sessions.py`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc

from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition
from lamina_kit.layer.sessions import GRACE_NS, HEADER, check_owner
from lamina_kit.rpc import status
from lamina_kit.telemetry import log

__all__ = ["GRACE_NS", "HEADER", "REVISION", "OwnerSession", "check_revision", "handshake"]

REVISION = "1.0"
"""Revision of the contracts that this version speaks; majors must agree."""
REOPEN_NS = 200_000_000
"""Pause between two attempts to open a session again."""
FREE_S = 5.0
"""How long an owner that stops waits for the layer below to free what it left."""


class OwnerSession:
    """The owner's end of a session: keeps the stream, and opens it again with the next epoch when it breaks.

    `handshake` is what the layer said of itself when the stream was last opened: another `boot_id` than before means
    that the host has rebooted and nothing is left to claim. `stale` means that a newer start of this owner is at work:
    the session stays lost. An owner that survives its own restart stores every epoch that `on_epoch` tells, before it
    is used, and starts with a higher one than any of them.
    """

    def __init__(
        self, channel: Any, owner: str, epoch: int, clock: Clock, caller: str, on_epoch: Callable[[int], None]
    ) -> None:
        """Use `open`."""
        self._on_epoch = on_epoch
        self._stub = layer_pb2_grpc.LayerStub(channel)
        self._clock = clock
        self._caller = caller
        self._log = log.logger(caller)
        self._lost: list[Callable[[], object]] = []
        self._reopened: list[Callable[[], object]] = []
        self._task: asyncio.Task[None] | None = None
        self._call: Any = None
        self.owner = owner
        self.epoch = epoch
        self.adopted_objects = 0
        self.stale = False
        self.handshake = layer_pb2.HandshakeResponse()

    @classmethod
    async def open(
        cls,
        channel: Any,
        owner: str,
        epoch: int,
        clock: Clock,
        on_epoch: Callable[[int], None] = lambda epoch: None,
        *,
        fresh: bool = False,
    ) -> OwnerSession:
        """Shakes hands and opens the session; returns once the layer has confirmed it.

        With `fresh` the layer frees what earlier starts of the owner left there; reopening never does.

        Raises what the layer answers (`FailedPrecondition` `REVISION_MISMATCH`, `Aborted` `SESSION_EPOCH_STALE` …), and
        `Unavailable` when nobody does.
        """
        check_owner(owner, epoch)
        session = cls(channel, owner, epoch, clock, owner.rpartition("/")[2][:63], on_epoch)
        try:
            await session._connect(epoch, fresh)
        except grpc.aio.AioRpcError as error:
            raise status.rpc_error(error) from error
        session._task = asyncio.get_running_loop().create_task(session._keep())
        return session

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The call metadata that name this session."""
        return ((HEADER, f"{self.owner}/{self.epoch}"),)

    @property
    def is_open(self) -> bool:
        """Whether the stream stands now."""
        return self._call is not None and not self._call.done()

    def on_lost(self, callback: Callable[[], object]) -> None:
        """Has `callback`, plain or a coroutine, called when the stream breaks."""
        self._lost.append(callback)

    def on_reopened(self, callback: Callable[[], object]) -> None:
        """Has `callback`, plain or a coroutine, called when a new stream stands: claim with the new `metadata`."""
        self._reopened.append(callback)

    async def close(self, *, free: bool = False) -> None:
        """Ends the session and stops opening it again. Idempotent.

        With `free` the layer below frees at once what the owner left there, where it would wait for its return. One
        that does not answer frees it later by itself.
        """
        release = free and self.is_open and not self.stale
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if release:
            await self._free()
        if self._call is not None:
            self._call.cancel()

    async def _free(self) -> None:
        """Replaces the session by one that starts with nothing."""
        epoch = self.epoch + 1
        self._on_epoch(epoch)
        call = self._stub.OpenSession(layer_pb2.OpenSessionRequest(owner=self.owner, epoch=epoch, fresh=True))
        try:
            async with asyncio.timeout(FREE_S):
                await call.read()
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            self._log.info("session.not_freed", owner=self.owner, epoch=epoch, error=str(error))
        finally:
            call.cancel()

    async def _connect(self, epoch: int, fresh: bool) -> None:
        """Shakes hands and opens the session; the epoch is used up only when the layer answers."""
        self.handshake = await handshake(self._stub, self._caller)
        if epoch != self.epoch:
            self._on_epoch(epoch)
            self.epoch = epoch
        call = self._stub.OpenSession(layer_pb2.OpenSessionRequest(owner=self.owner, epoch=epoch, fresh=fresh))
        first: Any = await call.read()
        if first is grpc.aio.EOF or not first.HasField("opened"):
            raise FailedPrecondition(
                f"The session {self.owner}/{self.epoch} ended before it was confirmed.", reason="SESSION_REFUSED"
            )
        self.adopted_objects = first.opened.adopted_objects
        self._call = call

    async def _keep(self) -> None:
        """Watches the stream; after a break tries again until it stands or a newer session of the owner is found."""
        while True:
            await self._until_broken()
            await self._tell(self._lost)
            while not self.stale and not await self._again():
                await self._clock.sleep_ns(REOPEN_NS)
            if self.stale:
                self._log.warning("session.stale", owner=self.owner, epoch=self.epoch)
                return
            await self._tell(self._reopened)

    async def _until_broken(self) -> None:
        try:
            event = await self._call.read()
            while event is not grpc.aio.EOF:
                self.stale = self.stale or event.HasField("replaced")
                event = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self._log.info("session.lost", owner=self.owner, epoch=self.epoch, code=error.code().name)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._log.info("session.lost", owner=self.owner, epoch=self.epoch, code="CANCELLED")

    async def _again(self) -> bool:
        """Opens the next epoch; returns whether trying is over (it stands, or this owner is not the newest)."""
        try:
            await self._connect(self.epoch + 1, False)
        except grpc.aio.AioRpcError as error:
            self.stale = status.rpc_error(error).reason == "SESSION_EPOCH_STALE"
            return self.stale
        except FailedPrecondition as error:
            self._log.info("session.refused", owner=self.owner, epoch=self.epoch, reason=error.reason)
            return False
        return True

    async def _tell(self, callbacks: list[Callable[[], object]]) -> None:
        """Calls back, in order, and awaits what is to be awaited. One that fails is logged, the rest go on."""
        for callback in callbacks:
            try:
                result = callback()
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                self._log.error("session.callback_failed", owner=self.owner, epoch=self.epoch, exc_info=error)


async def handshake(stub: Any, caller: str) -> Any:
    """Introduces `caller` and returns the layer's `HandshakeResponse`; raises when it speaks another major revision."""
    answer = await stub.Handshake(layer_pb2.HandshakeRequest(caller=caller, revision=REVISION))
    check_revision(answer.revision, answer.layer)
    return answer


def check_revision(revision: str, who: str) -> None:
    """Raises `FailedPrecondition` `REVISION_MISMATCH` unless `revision` has our major number."""
    if revision.partition(".")[0] != REVISION.partition(".")[0]:
        raise FailedPrecondition(
            f"{who} speaks contract revision {revision}, this side {REVISION}.",
            reason="REVISION_MISMATCH",
            next_step="Install the same version of Lamina on both sides.",
            theirs=revision,
            ours=REVISION,
        )
