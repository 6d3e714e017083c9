"""Owner sessions: what a layer makes in a layer below lives as long as its session there.

    owner (h1/hypervisor, epoch 7)                       layer below
        OpenSession ───────────────────────────────────▶ open
        calls with  lamina-session: h1/hypervisor/7 ───▶ objects belong to h1/hypervisor
        ✕ stream breaks                                  on_broken: contexts stop at once
        OpenSession (epoch 8) within 30 s ─────────────▶ open again; the objects wait to be claimed
        … or not                                         on_expired: what is left is freed

`Sessions` is the end below, `OwnerSession` the owner's. Epochs of one owner only grow.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc

from lamina_kit import log, status
from lamina_kit.checks import Checks
from lamina_kit.clock import Clock
from lamina_kit.errors import Aborted, FailedPrecondition, InvalidArgument, ResourceExhausted

HEADER = "lamina-session"
REVISION = "1.0"
"""Revision of the contracts that this version speaks; majors must agree."""
GRACE_NS = 30 * 10**9
MAX_OWNERS = 4096
REOPEN_NS = 200_000_000
"""Pause of an owner between two attempts to open its session again."""

_OWNER = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(/[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_OWNER = 127

Callback = Callable[[str, int], Awaitable[None] | None]


class SessionState(enum.Enum):
    """Life of a session: OPEN → BROKEN → (a newer one opens: OPEN) | EXPIRED."""

    OPEN = "open"
    BROKEN = "broken"
    EXPIRED = "expired"


@dataclass(frozen=True)
class SessionKey:
    """Who calls: an owner at one of its starts."""

    owner: str
    epoch: int


class _Session:
    """The newest session of one owner."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.state = SessionState.OPEN
        self.replaced: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.expiry: asyncio.Task[None] | None = None


def check_owner(owner: str, epoch: int) -> None:
    """Raises `InvalidArgument` when an owner or its epoch is malformed."""
    with Checks("SESSION_MALFORMED") as check:
        check.that(
            len(owner) <= _MAX_OWNER and _OWNER.fullmatch(owner) is not None,
            "owner",
            f"is not 1 to {_MAX_OWNER} lower-case letters, digits, '-' and '/'",
        )
        check.range("epoch", epoch, 1, 2**63 - 1)


def from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> SessionKey | None:
    """Returns the session that a call names in `lamina-session`, or None when it names none.

    A malformed one is `InvalidArgument` `SESSION_MALFORMED`.
    """
    for key, value in metadata or ():
        if key == HEADER:
            owner, _, number = str(value).rpartition("/")
            if not number.isascii() or not number.isdigit() or len(number) > 19:
                raise InvalidArgument(f"The metadata {HEADER} is not OWNER/EPOCH.", reason="SESSION_MALFORMED")
            check_owner(owner, int(number))
            return SessionKey(owner, int(number))
    return None


class Sessions:
    """The sessions of the owners of one layer's objects.

    Callbacks get (owner, epoch of the session that ended); they may be plain functions or coroutines, and run in the
    order in which they were given. `adopted` says how many objects of an owner wait to be claimed.
    """

    def __init__(self, clock: Clock, grace_ns: int = GRACE_NS) -> None:
        self._clock = clock
        self._grace_ns = grace_ns
        self._sessions: dict[str, _Session] = {}
        self._broken: list[Callback] = []
        self._expired: list[Callback] = []
        self._log = log.logger("session")
        self.adopted: Callable[[str], int] = lambda owner: 0

    def on_broken(self, callback: Callback) -> None:
        """Has `callback` called at once when a session's stream breaks or a newer session takes over."""
        self._broken.append(callback)

    def on_expired(self, callback: Callback) -> None:
        """Has `callback` called when an owner has not come back within 30 s: its objects are to be freed."""
        self._expired.append(callback)

    def state(self, owner: str) -> SessionState:
        """Returns the state of the owner's newest session; EXPIRED when there is none."""
        session = self._sessions.get(owner)
        return session.state if session else SessionState.EXPIRED

    def epoch(self, owner: str) -> int:
        """Returns the newest epoch of the owner; 0 when it never opened a session."""
        session = self._sessions.get(owner)
        return session.epoch if session else 0

    def owners(self) -> list[str]:
        """Returns the owners that have an open or broken session, in the order of their first."""
        return [owner for owner, session in self._sessions.items() if session.state is not SessionState.EXPIRED]

    def require(self, context: Any) -> SessionKey:
        """Returns the session that a call belongs to.

        `FailedPrecondition` `SESSION_REQUIRED` when it names none or one that is not open; `Aborted`
        `SESSION_EPOCH_STALE` when a newer one of the owner has opened: the caller should stop.
        """
        key = from_metadata(context.invocation_metadata())
        if key is None:
            raise FailedPrecondition(
                f"The call names no session in its metadata {HEADER}.",
                reason="SESSION_REQUIRED",
                next_step="Open a session on this channel first: Layer.OpenSession.",
            )
        self.check(key)
        return key

    def find(self, context: Any) -> SessionKey | None:
        """Returns the session that a call belongs to, or None when it names none; otherwise as `require`."""
        key = from_metadata(context.invocation_metadata())
        if key is not None:
            self.check(key)
        return key

    def check(self, key: SessionKey) -> None:
        """Raises unless `key` is an open session; as `require`."""
        session = self._sessions.get(key.owner)
        if session is not None and session.epoch > key.epoch:
            raise self._stale(key.owner, key.epoch, session.epoch)
        if session is None or session.epoch != key.epoch or session.state is not SessionState.OPEN:
            raise FailedPrecondition(
                f"The session {key.owner}/{key.epoch} is not open.",
                reason="SESSION_REQUIRED",
                next_step="Open it again with a higher epoch.",
                owner=key.owner,
                epoch=key.epoch,
            )

    async def hold(self, owner: str, epoch: int) -> AsyncIterator[tuple[Literal["opened", "replaced"], int]]:
        """Opens a session for as long as this generator lives; `layer.py` serves it as `OpenSession`.

        Yields ("opened", objects to claim) at once, and ("replaced", newer epoch) before it ends for a newer session.
        """
        check_owner(owner, epoch)
        session = self._open(owner, epoch)
        try:
            yield "opened", self.adopted(owner)
            newer = await session.replaced
            yield "replaced", newer
        finally:
            if self._sessions.get(owner) is session:
                self._break(owner, session)

    def _open(self, owner: str, epoch: int) -> _Session:
        """Makes the newest session of an owner, ending the one before."""
        old = self._sessions.get(owner)
        if old is not None and (epoch < old.epoch or (epoch == old.epoch and old.state is SessionState.OPEN)):
            raise self._stale(owner, epoch, old.epoch)
        if old is None and len(self._sessions) >= MAX_OWNERS:
            raise ResourceExhausted(f"{MAX_OWNERS} owners have sessions already.", reason="SESSIONS_FULL")
        session = _Session(epoch)
        self._sessions[owner] = session
        if old is not None:
            if old.expiry is not None:
                old.expiry.cancel()
            if old.state is SessionState.OPEN:
                old.state = SessionState.BROKEN
                self._call(self._broken, owner, old.epoch)
                old.replaced.set_result(epoch)
        return session

    def _break(self, owner: str, session: _Session) -> None:
        session.state = SessionState.BROKEN
        self._log.info("session.broken", owner=owner, epoch=session.epoch)
        self._call(self._broken, owner, session.epoch)
        session.expiry = asyncio.get_running_loop().create_task(self._expire(owner, session))

    async def _expire(self, owner: str, session: _Session) -> None:
        await self._clock.sleep_ns(self._grace_ns)
        session.state = SessionState.EXPIRED
        self._log.info("session.expired", owner=owner, epoch=session.epoch)
        for callback in self._expired:
            result = callback(owner, session.epoch)
            if inspect.isawaitable(result):
                await result

    def _call(self, callbacks: list[Callback], owner: str, epoch: int) -> None:
        """Calls back at once; what a coroutine does after its first await follows in a task of its own."""
        for callback in callbacks:
            result = callback(owner, epoch)
            if inspect.iscoroutine(result):
                task = asyncio.get_running_loop().create_task(result)
                task.add_done_callback(self._note_failure)
                _KEPT[task] = None

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        _KEPT.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("session.callback_failed", exc_info=error)

    def close(self) -> None:
        """Stops waiting for owners to come back: the layer itself stops."""
        for session in self._sessions.values():
            if session.expiry is not None:
                session.expiry.cancel()

    @staticmethod
    def _stale(owner: str, epoch: int, newest: int) -> Aborted:
        return Aborted(
            f"The session {owner}/{epoch} is older than {owner}/{newest}.",
            reason="SESSION_EPOCH_STALE",
            next_step="A newer start of this owner is at work; this one should stop.",
            owner=owner,
            epoch=epoch,
            newest=newest,
        )


_KEPT: dict[asyncio.Task[None], None] = {}
"""Tasks of callbacks in progress: the event loop itself keeps tasks only weakly."""


class OwnerSession:
    """The owner's end of a session: keeps the stream, and opens it again with the next epoch when it breaks.

    `handshake` is what the layer said of itself; when its `boot_id` changes the host has rebooted, and `on_lost` is
    called as for every break. Pass `metadata` to calls that make objects. The owner stores `epoch` when it must survive
    its own restart, and starts with a higher one.
    """

    def __init__(self, channel: Any, owner: str, epoch: int, clock: Clock, caller: str) -> None:
        """Use `open`."""
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
    async def open(cls, channel: Any, owner: str, epoch: int, clock: Clock) -> OwnerSession:
        """Shakes hands and opens the session; returns once the layer has confirmed it.

        Raises what the layer answers (`FailedPrecondition` `REVISION_MISMATCH`, `Aborted` `SESSION_EPOCH_STALE` …), and
        `Unavailable` when nobody does.
        """
        check_owner(owner, epoch)
        session = cls(channel, owner, epoch, clock, owner.rpartition("/")[2][:63])
        try:
            await session._connect()
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
        """Has `callback` called when the stream breaks."""
        self._lost.append(callback)

    def on_reopened(self, callback: Callable[[], object]) -> None:
        """Has `callback` called when a new stream stands: claim your objects with the new `metadata`."""
        self._reopened.append(callback)

    async def close(self) -> None:
        """Ends the session and stops opening it again. Idempotent."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._call is not None:
            self._call.cancel()

    async def _connect(self) -> None:
        self.handshake = await handshake(self._stub, self._caller)
        call = self._stub.OpenSession(layer_pb2.OpenSessionRequest(owner=self.owner, epoch=self.epoch))
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
            for callback in self._lost:
                callback()
            if self.stale:
                return
            while not await self._again():
                await self._clock.sleep_ns(REOPEN_NS)
            if self.stale:
                return
            for callback in self._reopened:
                callback()

    async def _until_broken(self) -> None:
        try:
            event = await self._call.read()
            while event is not grpc.aio.EOF:
                self.stale = self.stale or event.HasField("replaced")
                event = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self._log.info("session.lost", owner=self.owner, epoch=self.epoch, code=error.code().name)

    async def _again(self) -> bool:
        """Opens the next epoch; returns whether trying is over (it stands, or this owner is not the newest)."""
        self.epoch += 1
        try:
            await self._connect()
        except grpc.aio.AioRpcError as error:
            self.stale = status.rpc_error(error).reason == "SESSION_EPOCH_STALE"
            return self.stale
        except FailedPrecondition as error:
            self._log.info("session.refused", owner=self.owner, epoch=self.epoch, reason=error.reason)
            return False
        return True


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
