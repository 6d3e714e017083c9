"""Sessions on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lamina_kit.clock import Clock
from lamina_kit.errors import Aborted, FailedPrecondition, InvalidArgument, ResourceExhausted
from lamina_kit.layer import sessions as module
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.layer.service import local
from lamina_kit.layer.sessions import GRACE_NS, TOLD_NS, SessionKey, Sessions, SessionState
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.inproc.local import LocalServer

OWNER = "h1/mmu"


@pytest.fixture
def sessions(manual_clock: Any) -> Iterator[Sessions]:
    """Returns sessions on a clock that stands still."""
    sessions = Sessions(manual_clock)
    yield sessions
    sessions.close()


def call(header: str | None) -> Any:
    """Returns the context of a call that names a session."""
    metadata = () if header is None else (("lamina-session", header),)
    return SimpleNamespace(invocation_metadata=lambda: metadata)


async def held(sessions: Sessions, epoch: int) -> Any:
    """Returns an open session."""
    stream = sessions.hold(OWNER, epoch)
    assert await anext(stream) == ("opened", 0)
    return stream


@pytest.mark.real_time("counts turns in asyncio's own order")
async def test_objects_are_freed_after_thirty_seconds(sessions: Sessions, manual_clock: Any) -> None:
    """Broken at once, expired 30 s later, not a nanosecond before."""
    log: list[str] = []
    sessions.on_broken(lambda owner, epoch: log.append(f"broken {owner}/{epoch}"))
    sessions.on_expired(lambda owner, epoch: log.append(f"expired {owner}/{epoch}"))
    stream = await held(sessions, 3)
    await stream.aclose()
    assert log == [f"broken {OWNER}/3"]
    await asyncio.sleep(0)
    await manual_clock.advance(GRACE_NS - 1)
    assert len(log) == 1 and sessions.owners() == [OWNER]
    await manual_clock.advance(1)
    assert log[1:] == [f"expired {OWNER}/3"]
    assert sessions.state(OWNER) is SessionState.EXPIRED and sessions.owners() == []


@pytest.mark.parametrize("ending", ["in order", "away", "back"])
async def test_an_end_in_order_is_not_logged(ending: str, manual_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that stops with its owners says nothing; an owner that is away for a second is told, and its return."""
    sessions, told = Sessions(manual_clock), list[str]()
    monkeypatch.setattr(sessions, "_log", SimpleNamespace(info=lambda event, **more: told.append(event)))
    stream = await held(sessions, 3)
    await stream.aclose()
    await manual_clock.advance(TOLD_NS - 1)
    assert told == []
    if ending == "in order":
        sessions.close()
    await manual_clock.advance(1)
    if ending == "back":
        await (await held(sessions, 4)).aclose()
    await manual_clock.advance(GRACE_NS - TOLD_NS if ending == "away" else 1)
    sessions.close()
    more = {"in order": [], "away": ["session.expired"], "back": ["session.reopened"]}[ending]
    assert told == ([] if ending == "in order" else ["session.broken", *more])


async def test_an_owner_that_comes_back_keeps_its_objects(sessions: Sessions, manual_clock: Any) -> None:
    """A higher epoch within 30 s stops the expiry."""
    expired: list[int] = []
    sessions.on_expired(lambda owner, epoch: expired.append(epoch))
    stream = await held(sessions, 1)
    await stream.aclose()
    await asyncio.sleep(0)
    await manual_clock.advance(GRACE_NS - 1)
    again = await held(sessions, 2)
    await manual_clock.advance(10 * GRACE_NS)
    assert expired == [] and sessions.state(OWNER) is SessionState.OPEN
    await again.aclose()


async def test_epochs_only_grow(sessions: Sessions) -> None:
    """A lower epoch stays refused after the newer one broke; the same one may come back then."""
    stream = await held(sessions, 5)
    await stream.aclose()
    with pytest.raises(Aborted):
        await anext(sessions.hold(OWNER, 4))
    again = await held(sessions, 5)
    await again.aclose()


async def test_a_call_belongs_to_an_open_session(sessions: Sessions) -> None:
    """`require` returns the session, or says what is wrong with it."""
    with pytest.raises(FailedPrecondition) as caught:
        sessions.require(call(None))
    assert caught.value.reason == "SESSION_REQUIRED"
    assert sessions.find(call(None)) is None
    stream = await held(sessions, 2)
    assert sessions.require(call(f"{OWNER}/2")) == SessionKey(OWNER, 2) == sessions.find(call(f"{OWNER}/2"))
    with pytest.raises(Aborted) as stale:
        sessions.require(call(f"{OWNER}/1"))
    assert stale.value.reason == "SESSION_EPOCH_STALE"
    with pytest.raises(FailedPrecondition):
        sessions.require(call(f"{OWNER}/3"))
    await stream.aclose()
    with pytest.raises(FailedPrecondition):
        sessions.require(call(f"{OWNER}/2"))


@pytest.mark.parametrize(
    "header", ["", "x", "h1/mmu", "h1/mmu/", "h1/mmu/x", "h1/mmu/-1", "h1/mmu/0", "/1", "h1/mmu/²"]
)
def test_a_malformed_session_is_refused(sessions: Sessions, header: str) -> None:
    """The metadata of a call come from outside."""
    with pytest.raises(InvalidArgument) as caught:
        sessions.find(call(header))
    assert caught.value.reason == "SESSION_MALFORMED"


async def test_callbacks_may_be_coroutines_and_may_fail(sessions: Sessions) -> None:
    """One that fails is logged, the others run."""
    log: list[str] = []

    async def slow(owner: str, epoch: int) -> None:
        await asyncio.sleep(0)
        log.append("slow")

    def failing(owner: str, epoch: int) -> None:
        raise RuntimeError("defect")

    sessions.on_broken(failing)
    sessions.on_broken(slow)
    sessions.on_broken(lambda owner, epoch: log.append("quick"))
    stream = await held(sessions, 1)
    await stream.aclose()
    assert log == ["quick"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert log == ["quick", "slow"]


@pytest.mark.real_time("counts turns in asyncio's own order")
async def test_owners_are_bounded(sessions: Sessions, monkeypatch: pytest.MonkeyPatch, manual_clock: Any) -> None:
    """Too many owners are refused; one that has expired makes room."""
    monkeypatch.setattr(module, "MAX_OWNERS", 2)
    first, second = sessions.hold("a", 1), sessions.hold("b", 1)
    await anext(first)
    await anext(second)
    with pytest.raises(ResourceExhausted) as caught:
        await anext(sessions.hold("c", 1))
    assert caught.value.reason == "SESSIONS_FULL"
    await first.aclose()  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    await manual_clock.advance(GRACE_NS)
    third = sessions.hold("c", 1)
    assert await anext(third) == ("opened", 0)
    assert sessions.owners() == ["b", "c"]
    await second.aclose()  # type: ignore[attr-defined]
    await third.aclose()  # type: ignore[attr-defined]


class Nothing:
    """A service that offers only what the kit adds."""

    layer = "below"
    service_names: tuple[str, ...] = ()

    def register(self, server: Any) -> None:
        """Adds nothing of its own."""

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""


def layer_below(clock: Clock) -> tuple[LayerState, Any, LocalServer]:
    """Returns a layer, a channel to it and its server."""
    state = LayerState("below", "h1", clock, Rng(1), boot_id="b1")
    channel = local(Nothing(), state)
    return state, channel, channel.server


async def test_an_owner_opens_its_session_again(manual_clock: Any) -> None:
    """When the layer below comes back, so does the session, one epoch higher, and the owner may claim."""
    state, channel, server = layer_below(manual_clock)
    session = await OwnerSession.open(channel, OWNER, 1, manual_clock)
    log: list[str] = []

    async def claim() -> None:
        log.append(f"reopened {session.metadata[0][1]} boot {session.handshake.boot_id}")

    session.on_lost(lambda: log.append("lost"))
    session.on_reopened(claim)
    await server.stop(0)
    await _turns()
    assert log == ["lost"] and not session.is_open
    await manual_clock.advance(10**9)
    assert log == ["lost"]
    state.boot_id = "b2"
    await server.start()
    await manual_clock.advance(10**9)
    await _turns()
    assert log[1:] == [f"reopened {OWNER}/{session.epoch} boot b2"] and session.epoch > 1
    assert session.is_open and state.sessions.epoch(OWNER) == session.epoch
    await session.close()
    state.sessions.close()


async def test_a_callback_that_fails_does_not_end_the_watch(manual_clock: Any) -> None:
    """The owner's defect is logged; its session still comes back."""
    state, channel, server = layer_below(manual_clock)
    session = await OwnerSession.open(channel, OWNER, 1, manual_clock)

    def failing() -> None:
        raise RuntimeError("defect")

    session.on_lost(failing)
    await server.stop(0)
    await server.start()
    await _turns()
    await manual_clock.advance(10**9)
    await _turns()
    assert session.is_open
    await session.close()
    state.sessions.close()


async def test_nobody_below_is_told_at_once(manual_clock: Any) -> None:
    """The first opening does not wait for a layer that is not there."""
    _, channel, server = layer_below(manual_clock)
    await server.stop(0)
    with pytest.raises(Exception, match="stopped") as caught:
        await OwnerSession.open(channel, OWNER, 1, manual_clock)
    assert getattr(caught.value, "code", "") == "UNAVAILABLE"


async def test_an_owner_that_stops_in_order_leaves_nothing_behind(manual_clock: Any) -> None:
    """What it left is freed before its close returns, without the grace that an owner has that may come back."""
    state, channel, _ = layer_below(manual_clock)
    freed: list[tuple[str, int]] = []
    state.sessions.on_expired(lambda owner, epoch: freed.append((owner, epoch)))
    epochs: list[int] = []
    session = await OwnerSession.open(channel, OWNER, 5, manual_clock, epochs.append)
    await session.close(free=True)
    assert freed == [(OWNER, 5)] and epochs == [6]
    await session.close(free=True)
    assert freed == [(OWNER, 5)]
    state.sessions.close()


async def test_an_owner_that_stops_after_the_layer_below_does_not_wait_for_it(manual_clock: Any) -> None:
    """Nobody is left who could free anything; the close is no failure."""
    state, channel, server = layer_below(manual_clock)
    session = await OwnerSession.open(channel, OWNER, 5, manual_clock)
    await server.stop(0)
    await session.close(free=True)
    assert not session.is_open and state.sessions.epoch(OWNER) == 5
    state.sessions.close()


async def _turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)
