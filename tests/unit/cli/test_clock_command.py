"""`lamina clock advance`: what it prints while time passes and when it has passed."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import pytest
from lamina.hardware.v1 import clock_pb2 as pb

from lamina_cli.commands.stack import clock

HOUR = 3600 * 10**9


class Stub:
    """A clock that is looked at `looks` times before an advance of it ends, as it should or by an error."""

    def __init__(self, looks: int, error: Exception | None = None) -> None:
        self.looks = looks
        self.error = error
        self.asked = pb.AdvanceClockRequest()
        self.enough = asyncio.Event()

    async def AdvanceClock(self, request: pb.AdvanceClockRequest, timeout: float) -> pb.AdvanceClockResponse:  # noqa: ASYNC109
        """Ends when it was looked at often enough."""
        self.asked = request
        if self.looks:
            await self.enough.wait()
        if self.error is not None:
            raise self.error
        state = pb.ClockState(mode=pb.CLOCK_MODE_STEPPED, now_ns=3 * HOUR)
        return pb.AdvanceClockResponse(start_time_ns=2 * HOUR, clock=state, real_duration_ns=1_400_000_000)

    async def GetClock(self, request: pb.GetClockRequest) -> pb.ClockState:
        """Tells a time on the way."""
        self.looks -= 1
        if not self.looks:
            self.enough.set()
        return pb.ClockState(now_ns=2 * HOUR + 5)


def words(**given: Any) -> argparse.Namespace:
    """Returns the arguments of an advance."""
    return argparse.Namespace(**{"duration": None, "to": None, "output": "table", **given})


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that puts a clock in the place of the stack's."""

    def put(looks: int, error: Exception | None = None) -> Stub:
        made = Stub(looks, error)
        monkeypatch.setattr(clock, "_clock", lambda client: made)
        monkeypatch.setattr(clock, "SECONDS", 0.001)
        return made

    return put


async def test_a_long_advance_tells_where_it_is(stub: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress goes to standard error, the outcome to standard output."""
    made = stub(looks=2)
    await clock.advance(None, words(duration=HOUR))  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == "1h passed in 1.4 s; the clock stands at 3h\n"
    assert err.count("it stands at 2h0.000000005s") == 2 and "done in" in err
    assert made.asked == pb.AdvanceClockRequest(duration_ns=HOUR)


async def test_a_short_advance_tells_its_outcome_alone(
    stub: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said of progress before there is some; a time is asked for as one."""
    made = stub(looks=0)
    monkeypatch.setattr(clock, "SECONDS", 60.0)
    await clock.advance(None, words(to=0))  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""
    assert made.asked.WhichOneof("target") == "time_ns"


async def test_an_advance_that_fails_ends_its_line(stub: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The error goes to whoever prints it, behind a line that says that time stopped passing."""
    stub(looks=1, error=RuntimeError("gone"))
    with pytest.raises(RuntimeError, match="gone"):
        await clock.advance(None, words(duration=HOUR))  # type: ignore[arg-type]
    assert "ended before its time" in capsys.readouterr().err
