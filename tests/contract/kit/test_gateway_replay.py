"""The gateway's log: what stands in it, what it makes of a replay, and what happens where it cannot be written."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import grpc
import pytest
from tests.contract.kit.gateway_stack import HEADER, HOUR, SECOND, Gate, gate, refusal, replayed, same_again

from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.gateway import gateway as gateways
from lamina_kit.gateway.log import InputLog, Record, unwritable


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
