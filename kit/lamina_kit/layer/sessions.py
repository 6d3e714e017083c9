"""Owner sessions as the layer below keeps them: what an owner makes lives as long as its session.

    owner (h1/hypervisor, epoch 7)                       layer below
        OpenSession ───────────────────────────────────▶ open
        calls with  lamina-session: h1/hypervisor/7 ───▶ objects belong to h1/hypervisor
        ✕ stream breaks                                  on_broken: contexts stop at once
        OpenSession (epoch 8) within 30 s ─────────────▶ open again; the objects wait to be claimed,
                                                         or are freed first, when the owner starts fresh
        … or not                                         on_expired: what is left is freed

Epochs of one owner only grow. The owner's end is `layer/owner_session.py`.
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from lamina_kit.checks import Checks
from lamina_kit.clock import Clock
from lamina_kit.errors import Aborted, FailedPrecondition, InvalidArgument, ResourceExhausted
from lamina_kit.telemetry import log

HEADER = "lamina-session"
GRACE_NS = 30 * 10**9
TOLD_NS = 10**9
"""How long an owner may be away before that is logged: a whole stack that stops in order is quiet."""
MAX_OWNERS = 4096
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

    Callbacks get (owner, epoch of the session that ended). They may be plain functions or coroutines; plain ones run at
    once, in the order in which they were given. `adopted` says how many objects of an owner wait to be claimed.
    """

    def __init__(self, clock: Clock, grace_ns: int = GRACE_NS) -> None:
        self._clock = clock
        self._grace_ns = grace_ns
        self._sessions: dict[str, _Session] = {}
        self._broken: list[Callback] = []
        self._expired: list[Callback] = []
        self._telling: dict[asyncio.Task[None], None] = {}
        self._closed = False
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

    async def hold(
        self, owner: str, epoch: int, *, fresh: bool = False
    ) -> AsyncIterator[tuple[Literal["opened", "replaced"], int]]:
        """Opens a session for as long as this generator lives; `layer/state.py` serves it as `OpenSession`.

        A `fresh` one frees first what earlier sessions of the owner left, as if they had expired.
        Yields ("opened", objects to claim) at once, and ("replaced", newer epoch) before it ends for a newer session.
        """
        check_owner(owner, epoch)
        session = self._open(owner, epoch)
        try:
            if fresh:
                await self._free(owner, epoch - 1)
            yield "opened", self.adopted(owner)
            newer = await session.replaced
            yield "replaced", newer
        finally:
            if self._sessions.get(owner) is session:
                self._break(owner, session)

    def close(self) -> None:
        """Stops waiting for owners to come back: the layer itself stops, and what it kept goes with it. Idempotent."""
        self._closed = True
        for session in self._sessions.values():
            if session.expiry is not None:
                session.expiry.cancel()

    async def _free(self, owner: str, epoch: int) -> None:
        """Frees what sessions of an owner up to `epoch` left, and returns when that is done."""
        for callback in self._expired:
            result = callback(owner, epoch)
            if result is not None:
                await result

    def _open(self, owner: str, epoch: int) -> _Session:
        """Makes the newest session of an owner, ending the one before."""
        old = self._sessions.get(owner)
        if old is not None and (epoch < old.epoch or (epoch == old.epoch and old.state is SessionState.OPEN)):
            raise self._stale(owner, epoch, old.epoch)
        if old is None:
            self._make_room()
        session = _Session(epoch)
        self._sessions[owner] = session
        if old is not None:
            if old.expiry is not None:
                old.expiry.cancel()
            if old.state is SessionState.BROKEN:
                self._log.info("session.reopened", owner=owner, epoch=epoch)
            if old.state is SessionState.OPEN:
                old.state = SessionState.BROKEN
                self._tell(self._broken, owner, old.epoch)
                old.replaced.set_result(epoch)
        return session

    def _make_room(self) -> None:
        """Forgets the owner that expired longest ago when there are too many; refuses when none has."""
        if len(self._sessions) < MAX_OWNERS:
            return
        for owner, session in self._sessions.items():
            if session.state is SessionState.EXPIRED:
                del self._sessions[owner]
                return
        raise ResourceExhausted(
            f"{MAX_OWNERS} owners have sessions already.",
            reason="SESSIONS_FULL",
            next_step="End sessions that nobody needs.",
        )

    def _break(self, owner: str, session: _Session) -> None:
        session.state = SessionState.BROKEN
        self._tell(self._broken, owner, session.epoch)
        if not self._closed:
            session.expiry = asyncio.get_running_loop().create_task(self._expire(owner, session))

    async def _expire(self, owner: str, session: _Session) -> None:
        end_ns = self._clock.now_ns() + self._grace_ns
        await self._clock.sleep_ns(min(TOLD_NS, self._grace_ns))
        self._log.info("session.broken", owner=owner, epoch=session.epoch)
        await self._clock.sleep_ns(end_ns - self._clock.now_ns())
        session.state = SessionState.EXPIRED
        self._log.info("session.expired", owner=owner, epoch=session.epoch)
        self._tell(self._expired, owner, session.epoch)

    def _tell(self, callbacks: list[Callback], owner: str, epoch: int) -> None:
        """Calls back, in order; a coroutine goes on in a task of its own. One that fails is logged, the rest go on."""
        for callback in callbacks:
            try:
                result = callback(owner, epoch)
            except Exception as error:
                self._log.error("session.callback_failed", owner=owner, epoch=epoch, exc_info=error)
                continue
            if result is not None:
                task = asyncio.get_running_loop().create_task(_finish(result))
                self._telling[task] = None  # the event loop itself keeps tasks only weakly
                task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("session.callback_failed", exc_info=error)

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


async def _finish(work: Awaitable[None]) -> None:
    await work
