"""The gateway's callers: deadlines, cancellations, broken connections, slow readers, many at once; and its stop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from tests.contract.kit.gateway_stack import HOUR, SECOND, Gate, gate, refusal, same_again

from lamina_kit.gateway import gateway as gateways
from lamina_kit.gateway import outer_call
from lamina_kit.gateway.pace import Pace
from lamina_kit.rpc import status
from lamina_kit.rpc.channel import connect


async def test_the_deadline_of_a_caller_is_real_time(stepped: Gate, eventually: Any) -> None:
    """A caller whose deadline passes while the stack stands still is told so, and its handler is cancelled."""
    await stepped.channel.channel_ready()
    error = await refusal(stepped.ask("Hold", timeout=2.0))
    assert error.code == "DEADLINE_EXCEEDED"
    await eventually(lambda: stepped.service.cancelled == 1, "the handler is cancelled")
    begun, asked, ended = (record.kind for record in stepped.records())
    assert (begun, asked) == ("open", "message")
    assert ended in ("deadline", "cancel"), "the client's clock or the port's, whichever notices first"
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


async def test_time_goes_on_as_soon_as_a_reader_has_caught_up(stepped: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it was bytes of which too many waited: a reader that reads costs no patience."""
    monkeypatch.setattr(outer_call, "SOFT_BYTES", 64)
    monkeypatch.setattr(outer_call, "PATIENCE_NS", 3600 * SECOND)
    ticks = stepped.stream("Ticks", 1000)
    await ticks.read()
    advance = asyncio.ensure_future(stepped.gateway.clock.advance(500 * 1000, None))
    async with asyncio.timeout(60):
        assert [int((await ticks.read()).value) for _ in range(500)] == [n * 1000 for n in range(1, 501)]
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
    await stepped.channel.channel_ready()
    error = await refusal(stepped.ask("Spin", timeout=2.0))
    assert error.code == "DEADLINE_EXCEEDED"
    assert await stepped.ask("Echo", "after") == "after"
    ended = stepped.records("deadline", "cancel")[0]
    assert ended.callbacks is not None and ended.callbacks > 0
    assert stepped.service.cancelled == 1
    await same_again(stepped)


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


async def test_a_stop_can_be_hastened(stepped: Gate, eventually: Any) -> None:
    """A long grace is over when somebody says so; who has no answer by then is told."""
    held = asyncio.ensure_future(refusal(stepped.ask("Hold")))
    await eventually(lambda: stepped.gateway.clock.read().waiting_calls == 1, "it is in")
    shut = asyncio.ensure_future(stepped.gateway.shut(3600.0))
    await asyncio.sleep(0)
    assert not shut.done()
    stepped.gateway.hasten()
    async with asyncio.timeout(60):
        await shut
    assert (await held).reason == "SHUTTING_DOWN"


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
