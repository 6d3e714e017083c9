"""The gateway: how callers in real time meet a stack whose time stands still, runs, or is advanced; and its log."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from tests.contract.kit.gateway_stack import HEADER, Gate, gate, replayed

from lamina_kit import gateway as gateways
from lamina_kit import status
from lamina_kit.channel import connect
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.gateway_log import InputLog, Record, unwritable
from lamina_kit.gateway_pace import SETTLE_NS, Pace

SECOND, HOUR = 10**9, 3600 * 10**9


@pytest.fixture
async def stepped(short_dir: Path) -> AsyncIterator[Gate]:
    """The service on a stepped clock that callers do not make go."""
    async with gate(short_dir) as found:
        yield found


async def refusal(call: Any) -> LaminaError:
    """Returns the error with which a call from outside ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.rpc_error(caught.value)


async def same_again(found: Gate) -> None:
    """Closes the stack and checks that its log leads a fresh one through the same history."""
    await found.close()
    played, lines, differences = await asyncio.to_thread(replayed, found.log)
    assert differences == []
    assert lines == found.lines and played.stopped and played.now_ns == found.loop.now_ns


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stepped_stack_answers_and_no_time_passes(stepped: Gate) -> None:
    """A call that needs no time is answered at the instant at which it enters."""
    assert await stepped.ask("Echo", "hello") == "hello"
    assert stepped.loop.now_ns == 0
    await same_again(stepped)


async def test_timers_fire_in_order_within_an_advance(stepped: Gate) -> None:
    """An advance fires each timer at its own time, those of its last instant too, and ends exactly there."""
    fired: list[tuple[int, int]] = []

    def fire(when: int) -> None:
        fired.append((when, stepped.loop.now_ns))

    for when in (5 * SECOND, 3 * SECOND, 10 * SECOND, 10 * SECOND + 1):
        stepped.loop.call_at_ns(when, fire, when)
    done = await stepped.gateway.clock.advance(10 * SECOND, None)
    assert fired == [(at, at) for at in (3 * SECOND, 5 * SECOND, 10 * SECOND)]
    assert (done.start_ns, done.clock.now_ns, stepped.loop.now_ns) == (0, 10 * SECOND, 10 * SECOND)
    assert done.clock.next_event_ns == 10 * SECOND + 1 and done.real_ns > 0


async def test_an_advance_ends_when_the_stack_is_quiescent(stepped: Gate) -> None:
    """What a timer of the last instant sets off at that instant is done when the advance is answered."""
    seen: list[int] = []

    async def work() -> None:
        for _ in range(200):
            await asyncio.sleep(0)
        seen.append(stepped.loop.now_ns)

    stepped.loop.call_at_ns(SECOND, lambda: stepped.loop.create_task(work()))
    await stepped.gateway.clock.advance(None, SECOND)
    assert seen == [SECOND]


async def test_advances_are_made_in_the_order_of_their_arrival(stepped: Gate) -> None:
    """Each begins where the one before it ended; one whose time has passed meanwhile is refused in its turn."""
    clock = stepped.gateway.clock
    first, second, late = await asyncio.gather(
        clock.advance(SECOND, None), clock.advance(SECOND, None), clock.advance(None, 5), return_exceptions=True
    )
    assert not isinstance(first, BaseException) and not isinstance(second, BaseException)
    assert (first.start_ns, second.start_ns, stepped.loop.now_ns) == (0, SECOND, 2 * SECOND)
    assert isinstance(late, LaminaError) and late.reason == "CLOCK_BACKWARDS"


async def test_calls_enter_while_time_is_advanced(stepped: Gate) -> None:
    """A long advance of a busy stack is no wall: others are answered in the middle of it."""
    ticks = stepped.stream("Ticks", 1000)
    assert await ticks.read()
    advance = asyncio.ensure_future(stepped.gateway.clock.advance(HOUR, None))
    assert await stepped.ask("Echo", "between") == "between"
    assert not advance.done() and 0 < stepped.loop.now_ns < HOUR
    ticks.cancel()
    assert (await advance).clock.now_ns == HOUR
    await same_again(stepped)


async def test_an_advance_whose_caller_leaves_ends_where_it_is(stepped: Gate, eventually: Any) -> None:
    """The clock stays at the time that it had reached, and goes on from there when it is told to."""
    ticks = stepped.stream("Ticks", 1000)
    await ticks.read()
    advance = asyncio.ensure_future(stepped.gateway.clock.advance(HOUR, None))
    await eventually(lambda: stepped.loop.now_ns > 0, "time passes")
    advance.cancel()
    await asyncio.gather(advance, return_exceptions=True)
    ticks.cancel()
    await stepped.ask("Echo")
    reached = stepped.loop.now_ns
    assert 0 < reached < HOUR
    assert (await stepped.gateway.clock.advance(5, None)).start_ns == reached


async def test_only_so_many_advances_wait(stepped: Gate) -> None:
    """The 65th is told to wait for the others; all end when the stack stops."""
    ticks = stepped.stream("Ticks", 1000)
    await ticks.read()
    clock = stepped.gateway.clock
    waiting = [asyncio.ensure_future(clock.advance(HOUR, None)) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(LaminaError) as caught:
        await clock.advance(1, None)
    assert caught.value.reason == "CLOCK_ADVANCES_FULL"
    assert clock.read().advances == 64
    await stepped.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {error.reason for error in ended if isinstance(error, LaminaError)} == {"CLOCK_STOPPED"}
    for late in (clock.advance(1, None), clock.change(5, None)):
        with pytest.raises(LaminaError, match="stops"):
            await late


async def test_a_call_that_waits_makes_a_stepped_clock_go_at_its_rate(short_dir: Path) -> None:
    """An hour's sleep at a million times real time is answered in its hour, and the clock stands again."""
    async with gate(short_dir, Pace("stepped", rate_permille=10**9)) as found:
        assert await found.ask("Sleep", HOUR) == str(HOUR)
        assert found.loop.now_ns == HOUR
        await same_again(found)


async def test_a_call_waits_for_an_advance_where_callers_move_nothing(stepped: Gate, eventually: Any) -> None:
    """At rate 0 a sleep ends when somebody lets the time pass; the clock says who waits."""
    asleep = asyncio.ensure_future(stepped.ask("Sleep", HOUR))
    await eventually(lambda: stepped.gateway.clock.read().waiting_calls == 1, "the call has entered")
    await stepped.gateway.clock.advance(HOUR - 1, None)
    assert not asleep.done()
    await stepped.gateway.clock.advance(1, None)
    assert await asleep == str(HOUR)
    await same_again(stepped)


async def test_an_open_watch_does_not_make_a_clock_go(short_dir: Path, eventually: Any) -> None:
    """A stepped clock at the highest rate stands still while nothing but watches are open."""
    async with gate(short_dir, Pace("stepped", rate_permille=10**9)) as found:
        found.loop.call_at_ns(5, lambda: None)
        watch = found.stream("WatchNothing", "x")
        assert (await watch.read()).value == "x"
        assert await found.ask("Echo") == ""
        assert found.loop.now_ns == 0 and found.gateway.clock.read().waiting_calls == 0
        watch.cancel()
        await eventually(lambda: found.service.cancelled, "the stack sees the watch end")


async def test_a_virtual_clock_runs_until_its_callers_are_served(short_dir: Path, eventually: Any) -> None:
    """A day's sleep is answered at once; the clock then runs on for a minute and stands still."""
    async with gate(short_dir, Pace("virtual")) as found:
        ticking = found.loop.call_at_ns

        def again() -> None:
            ticking(found.loop.now_ns + 10 * SECOND, again)

        again()
        assert await found.ask("Sleep", 24 * HOUR) == str(24 * HOUR)
        await eventually(lambda: found.loop.now_ns == 24 * HOUR + SETTLE_NS, "it settles")
        assert await found.ask("Echo", "still there") == "still there"


async def test_a_scaled_clock_goes_by_itself_and_is_changed(short_dir: Path) -> None:
    """It goes while nobody calls, faster after a change of rate, and not while it is paused."""
    async with gate(short_dir, Pace("scaled", rate_permille=10**9)) as found:
        clock = found.gateway.clock
        assert int(await found.ask("Sleep", HOUR)) >= HOUR
        assert (await clock.change(None, True)).paused
        stood = found.loop.now_ns
        await found.ask("Echo")
        assert found.loop.now_ns == stood and clock.read().now_ns == stood
        assert (await clock.advance(SECOND, None)).clock.now_ns == stood + SECOND
        assert (await clock.change(1, False)).rate_permille == 1
        assert clock.read().now_ns < stood + 2 * SECOND, "a thousandth of real time"
        with pytest.raises(LaminaError, match="0 thousandths"):
            await clock.change(0, None)
        assert [record.rate_permille for record in found.records("set")] == [None, 1]


async def test_a_watch_of_the_clock_tells_its_changes(stepped: Gate) -> None:
    """The first reading comes at once, the next when time has passed, and the stop of the stack ends it."""
    watch = stepped.gateway.clock.watch(10)
    assert (await anext(watch)).now_ns == 0
    following = asyncio.ensure_future(anext(watch))
    await stepped.gateway.clock.advance(SECOND, None)
    assert (await following).now_ns == SECOND
    await stepped.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


# ── callers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_deadline_of_a_caller_is_real_time(stepped: Gate, eventually: Any) -> None:
    """A caller whose deadline passes while the stack stands still is told so, and its handler is cancelled."""
    error = await refusal(stepped.ask("Hold", timeout=0.1))
    assert error.code == "DEADLINE_EXCEEDED"
    await eventually(lambda: stepped.service.cancelled == 1, "the handler is cancelled")
    assert [record.kind for record in stepped.records()] == ["open", "message", "deadline"]
    await same_again(stepped)


async def test_a_caller_that_cancels_is_gone(stepped: Gate, eventually: Any) -> None:
    """The stack sees the cancellation of a stream in the middle, at an instant that the log holds."""
    ticks = stepped.stream("Ticks", SECOND)
    assert (await ticks.read()).value == "0"
    await stepped.gateway.clock.advance(SECOND, None)
    assert (await ticks.read()).value == str(SECOND)
    ticks.cancel()
    await eventually(lambda: stepped.service.cancelled == 1, "the handler is cancelled")
    assert [record.cause for record in stepped.records("cancel")] == ["client"]
    assert stepped.loop.now_ns == SECOND
    await same_again(stepped)


class Cable:
    """A TCP connection that can be pulled out: what a host that loses its power looks like."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.target = ("", 0)

    async def joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes bytes on both ways."""
        there, back = await asyncio.open_connection(*self.target)
        self.writers += [writer, back]
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    def pull(self) -> None:
        """Breaks the connections without a word of HTTP/2."""
        for writer in self.writers:
            writer.transport.abort()


async def test_a_caller_that_vanishes_is_noticed(short_dir: Path, eventually: Any) -> None:
    """A connection that breaks cancels its calls in the stack; the others do not notice."""
    cable = Cable()
    async with gate(short_dir, address="127.0.0.1:0") as found:
        host, _, port = found.target.rpartition(":")
        cable.target = (host, int(port))
        server = await asyncio.start_server(cable.joined, "127.0.0.1", 0)
        async with server, connect(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as channel:
            calls = [found.call("Ticks", "unary_stream", channel)(StringValue(value="1000")) for _ in range(5)]
            for call in calls:
                await call.read()
            cable.pull()
            await eventually(lambda: found.service.cancelled == 5, "all five are cancelled")
            assert await found.ask("Echo", "here") == "here"
        assert {record.cause for record in found.records("cancel")} == {"client"}
        await same_again(found)


async def test_a_reader_that_stands_still_is_cut(stepped: Gate, eventually: Any) -> None:
    """A stream whose reader does not read ends with the reason; the stack never waits for it."""
    flood = stepped.stream("Flood", "x" * 10_000)
    await eventually(lambda: stepped.service.cancelled == 1, "the flood is cut", within=30.0)
    assert await stepped.ask("Echo", "on") == "on"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in flood:
            pass
    assert status.rpc_error(caught.value).reason == "READER_TOO_SLOW"
    assert [record.cause for record in stepped.records("cancel")] == ["slow_reader"]


async def test_time_does_not_run_away_from_a_reader(stepped: Gate) -> None:
    """An advance of thousands of ticks reaches a reader who reads, each and in order."""
    ticks = stepped.stream("Ticks", 1000)
    assert (await ticks.read()).value == "0"
    advance = asyncio.ensure_future(stepped.gateway.clock.advance(5000 * 1000, None))
    seen = [int((await ticks.read()).value) for _ in range(5000)]
    assert seen == [number * 1000 for number in range(1, 5001)]
    await advance
    ticks.cancel()


async def test_many_callers_at_once_repeat_their_history(short_dir: Path) -> None:
    """Hundreds of calls that race for chance, time and events: the log leads to the same bytes."""
    async with gate(short_dir, Pace("stepped", rate_permille=10**8)) as found:

        async def talk(name: int) -> list[str]:
            call = found.call("Talk", "stream_stream")()
            answers = []
            for word in range(5):
                await call.write(StringValue(value=f"w{name}-{word}"))
                answers.append((await call.read()).value)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            return answers

        drawn, said = await asyncio.gather(
            asyncio.gather(*(found.ask("Draw", f"d{number}") for number in range(300))),
            asyncio.gather(*(talk(number) for number in range(40))),
        )
        assert len(set(drawn)) == 300
        assert said == [[f"W{name}-{word}" for word in range(5)] for name in range(40)]
        assert len(found.lines) == 500
        await same_again(found)


async def test_messages_have_a_largest_size(stepped: Gate) -> None:
    """Almost 8 MiB pass through both ways, more is refused by the port and never enters."""
    large = "x" * (7 << 20)
    assert await stepped.ask("Echo", large) == large
    error = await refusal(stepped.ask("Echo", "x" * (9 << 20)))
    assert error.code == "RESOURCE_EXHAUSTED"
    assert len(stepped.records("open")) == 1


async def test_there_is_room_for_so_many_calls(stepped: Gate, monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    """One more than the gateway takes is told to retry, and enters when another has ended."""
    monkeypatch.setattr(gateways, "MAX_CALLS", 4)
    held = [asyncio.ensure_future(stepped.ask("Hold")) for _ in range(4)]
    await eventually(lambda: len(stepped.records("open")) == 4, "four have entered")
    error = await refusal(stepped.ask("Echo"))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "GATEWAY_FULL") and error.next_step
    held.pop().cancel()
    await eventually(lambda: stepped.service.cancelled == 1, "one has ended")
    assert await stepped.ask("Echo", "in") == "in"
    for call in held:
        call.cancel()


async def test_an_unknown_method_is_unimplemented(stepped: Gate) -> None:
    """What no layer has is answered by the port, with or without a service of that name."""
    for name in ("Nothing", "../x"):
        assert (await refusal(stepped.ask(name))).code == "UNIMPLEMENTED"
    assert stepped.records() == []


async def test_metadata_enter_without_what_tells_the_transport(stepped: Gate) -> None:
    """Metadata of the caller's reach handler and log, text and bytes; the library that it called with does not."""
    sent = (("x-text", "a b"), ("x-blob-bin", b"\x00\xff"))
    await stepped.ask("Metadata", metadata=sent)
    assert {key: value for key, value in stepped.service.seen if key.startswith("x-")} == dict(sent)
    assert "user-agent" not in dict(stepped.service.seen)
    assert set(sent) <= set(stepped.records("open")[0].metadata)
    await same_again(stepped)


async def test_a_handler_that_spins_can_be_cancelled(stepped: Gate) -> None:
    """A stack that never becomes quiescent still takes inputs; the log says behind how many callbacks."""
    error = await refusal(stepped.ask("Spin", timeout=0.2))
    assert error.code == "DEADLINE_EXCEEDED"
    assert await stepped.ask("Echo", "after") == "after"
    deadline = stepped.records("deadline")[0]
    assert deadline.callbacks is not None and deadline.callbacks > 0
    assert stepped.service.cancelled == 1
    await same_again(stepped)


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_stands_in_the_log_from_end_to_end(stepped: Gate) -> None:
    """Opening, message and outcome, each at its instant and with the events before it."""
    assert await stepped.ask("Sleep", 0) == "0"
    await stepped.gateway.clock.advance(HOUR, None)
    call = stepped.call("Talk", "stream_stream")()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    await stepped.close()
    assert [(record.kind, record.ns, record.call, record.events) for record in stepped.records()] == [
        ("open", 0, 1, 0),
        ("message", 0, 1, 0),
        ("answered", 0, 1, 1),
        ("advance", HOUR, 0, 1),
        ("open", HOUR, 2, 1),
        ("half_close", HOUR, 2, 1),
        ("answered", HOUR, 2, 1),
        ("stop", HOUR, 0, 1),
        ("end", HOUR, 0, 2),
    ]


async def test_a_replay_that_answers_otherwise_is_noticed(stepped: Gate) -> None:
    """Another program gives other answers: the replay names the call and its digests."""
    await stepped.ask("Echo", "hello")
    await stepped.close()
    _, _, differences = await asyncio.to_thread(replayed, stepped.log, "!")
    assert [error.reason for error in differences] == ["REPLAY_DIVERGED"]
    assert "call 1" in differences[0].message and differences[0].next_step


async def test_a_replay_that_has_other_events_is_noticed(stepped: Gate) -> None:
    """A log whose count of events is another leads to a difference at that record, and at the end."""
    await stepped.ask("Sleep", 0)
    await stepped.close()
    lines = stepped.log.read_text().splitlines()
    lines[3] = lines[3].replace('"events":1', '"events":0')
    stepped.log.write_text("\n".join(lines) + "\n")
    _, _, differences = await asyncio.to_thread(replayed, stepped.log)
    assert len(differences) == 1 and "0 events before it, here 1" in differences[0].message


async def test_a_log_of_another_stack_is_foreign(stepped: Gate) -> None:
    """A method or a layer that this stack lacks ends the replay with the call that wants it."""
    await stepped.ask("Echo")
    await stepped.close()
    content = stepped.log.read_text()
    for old, new in (('"timed"', '"mmu"'), ("/Echo", "/Gone")):
        stepped.log.write_text(content.replace(old, new))
        with pytest.raises(LaminaError) as caught:
            await asyncio.to_thread(replayed, stepped.log)
        assert caught.value.reason == "INPUT_LOG_FOREIGN" and "Call 1 " in caught.value.message


async def test_a_full_log_refuses_calls_and_takes_their_ends(short_dir: Path) -> None:
    """Where the log has no more room nothing enters that could not be replayed; what is under way still ends."""
    log = InputLog(short_dir / "input.jsonl", HEADER, limit=12_000)
    async with gate(short_dir, log=log) as found:
        ticks = found.stream("Ticks", SECOND)
        await ticks.read()
        reasons = [(await refusal(found.ask("Echo", "x" * 10_000))).reason]
        assert reasons == ["INPUT_LOG_FULL"]
        ticks.cancel()
        await same_again(found)


class Broken(InputLog):
    """A log on a disk that is full from its third record on."""

    count = 0

    def write(self, record: Record) -> None:
        """Fails at the third record."""
        self.count += 1
        if self.count > 2:
            raise unwritable(self.path, OSError(28, "No space left on device"))
        super().write(record)


async def test_a_log_that_cannot_be_written_ends_the_stack(short_dir: Path) -> None:
    """Every caller is told why, nothing enters any more, and whoever runs the stack learns it."""
    async with gate(short_dir, log=Broken(short_dir / "input.jsonl", HEADER)) as found:
        error = await refusal(found.ask("Echo"))
        assert (error.code, error.reason) == ("UNAVAILABLE", "GATEWAY_CLOSED") and "No space left" in error.message
        assert (await refusal(found.ask("Echo"))).reason == "GATEWAY_CLOSED"
        failure = found.gateway.failed.exception()
        assert isinstance(failure, FailedPrecondition) and failure.reason == "INPUT_LOG_UNWRITABLE"
        with pytest.raises(LaminaError, match="stops"):
            await found.gateway.clock.advance(1, None)


async def test_a_stop_tells_who_still_waits(stepped: Gate, eventually: Any) -> None:
    """Open calls end with the reason, new ones are refused, and the stack sees all of them end before it stops."""
    ticks = stepped.stream("Ticks", HOUR)
    await ticks.read()
    held = asyncio.ensure_future(refusal(stepped.ask("Hold")))
    await eventually(lambda: stepped.gateway.clock.read().waiting_calls == 2, "both are in")
    await stepped.gateway.shut(0.05)
    for error in (await held, await refusal(ticks.read()), await refusal(stepped.ask("Echo"))):
        assert (error.code, error.reason) == ("UNAVAILABLE", "SHUTTING_DOWN") and error.next_step
    await stepped.close()
    await stepped.close()
    assert [record.cause for record in stepped.records("cancel")] == ["refused", "refused"]
    assert [record.kind for record in stepped.records()][-2:] == ["stop", "end"]
    assert stepped.lines[-1].count("stopped") == 1
    await same_again(stepped)


async def test_a_stop_lets_calls_with_one_answer_end(stepped: Gate, eventually: Any) -> None:
    """Within the grace they are answered; a stop with nothing left to wait for is over."""
    asleep = asyncio.ensure_future(stepped.ask("Sleep", HOUR))
    await eventually(lambda: stepped.gateway.clock.read().waiting_calls == 1, "it is in")
    shut = asyncio.ensure_future(stepped.gateway.shut(60.0))
    await asyncio.sleep(0)
    stepped.gateway.clock.pace.rate_permille = 10**9
    stepped.gateway.wake()
    assert await asleep == str(HOUR)
    await shut
    await same_again(stepped)


async def test_a_collection_of_garbage_is_an_input(stepped: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loop has taken the collector over, a collection while nothing goes on stands in the log."""
    monkeypatch.setattr(gateways, "GARBAGE", 0)
    with stepped.loop.collecting_garbage():
        kept: list[list[int]] = [[] for _ in range(1000)]
        await stepped.ask("Echo")
        await stepped.ask("Echo")
        assert len(kept) == 1000
    assert gc.isenabled()
    assert stepped.records("collect")
    await same_again(stepped)
