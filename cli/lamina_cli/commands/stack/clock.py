"""`lamina clock`: reads and moves the clock of a stack."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import word
from lamina_cli.output.progress import Line

if TYPE_CHECKING:
    from lamina.hardware.v1 import clock_pb2, clock_pb2_grpc

ADVANCE_SECONDS = 7 * 86_400.0
"""Real time that an advance may take: a simulated year of a busy stack is a long one. Ctrl-C ends it where it is."""
LIVE_SECONDS, SECONDS = 1.0, 10.0
"""Real time between two words of progress: on a terminal, where they replace each other, and elsewhere."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command(commands.add_parser("get", help="show the clock"), get, lists=True)
    change = commands.add_parser("set", help="change how the clock goes")
    change.add_argument(
        "--rate", type=parse.rate, metavar="N", help="as a multiple of real time, for example 10 or 0.5"
    )
    pause = change.add_mutually_exclusive_group()
    pause.add_argument("--pause", action="store_true", default=None, dest="paused", help="let it go by advances alone")
    pause.add_argument("--resume", action="store_false", default=None, dest="paused", help="let it go again")
    command(change, set_clock, lists=True)
    step = commands.add_parser("advance", help="let time pass, and wait until the stack has done what is in it")
    target = step.add_mutually_exclusive_group(required=True)
    target.add_argument("duration", type=parse.duration, nargs="?", help="for example 250ms, 1h30m or 2d")
    target.add_argument("--to", type=parse.duration, metavar="TIME", help="a time since the stack's start instead")
    command(step, advance, lists=True)


def _clock(client: Client) -> clock_pb2_grpc.ClockStub:
    from lamina.hardware.v1 import clock_pb2_grpc

    return client.stub("hardware", clock_pb2_grpc.ClockStub)


async def get(client: Client, args: argparse.Namespace) -> None:
    """Shows the clock."""
    from lamina.hardware.v1 import clock_pb2

    show(await _clock(client).GetClock(clock_pb2.GetClockRequest()), args)


async def set_clock(client: Client, args: argparse.Namespace) -> None:
    """Changes how the clock goes, and shows it."""
    from lamina.hardware.v1 import clock_pb2

    show(await _clock(client).SetClock(clock_pb2.SetClockRequest(rate_permille=args.rate, paused=args.paused)), args)


async def advance(client: Client, args: argparse.Namespace) -> None:
    """Lets time pass, and shows the clock at its end."""
    from lamina.hardware.v1 import clock_pb2

    request = clock_pb2.AdvanceClockRequest(duration_ns=args.duration)
    if args.to is not None:
        request = clock_pb2.AdvanceClockRequest(time_ns=args.to)
    done = await shown_going(client, request)
    if args.output == "json":
        printing.as_json(done)
        return
    passed, took = done.clock.now_ns - done.start_time_ns, done.real_duration_ns
    now = printing.span(done.clock.now_ns)
    print(f"{printing.span(passed)} passed in {printing.duration(took)}; the clock stands at {now}")


async def shown_going(client: Client, request: clock_pb2.AdvanceClockRequest) -> Any:
    """Advances the clock and tells where it is every now and then, on standard error. Returns the answer."""
    from lamina.hardware.v1 import clock_pb2

    stub = _clock(client)
    call = asyncio.ensure_future(stub.AdvanceClock(request, timeout=ADVANCE_SECONDS))
    line: Line | None = None
    pause_s = LIVE_SECONDS if sys.stderr.isatty() else SECONDS
    try:
        while not (await asyncio.wait((call,), timeout=pause_s))[0]:
            line = line or Line("advancing the clock")
            line.step(f"it stands at {printing.span((await stub.GetClock(clock_pb2.GetClockRequest())).now_ns)}")
        done = await call
    except BaseException:
        call.cancel()
        if line is not None:
            line.done("ended before its time")
        raise
    if line is not None:
        line.done()
    return done


def show(clock: clock_pb2.ClockState, args: argparse.Namespace) -> None:
    """Prints the clock."""
    from lamina.hardware.v1 import clock_pb2

    printing.show(
        [clock],
        ("MODE", "TIME", "RATE", "PAUSED", "NEXT EVENT", "SEED", "WAITING CALLS", "BEHIND"),
        lambda clock: (
            word(clock_pb2.ClockMode, clock.mode),
            printing.span(clock.now_ns),
            f"{clock.rate_permille / 1000:g}x" if clock.mode != clock_pb2.CLOCK_MODE_VIRTUAL else "-",
            "yes" if clock.paused else "no",
            f"in {printing.span(clock.next_event_time_ns - clock.now_ns)}"
            if clock.HasField("next_event_time_ns")
            else "-",
            clock.seed if clock.HasField("seed") else "-",
            clock.waiting_call_count,
            printing.duration(clock.behind_ns) if clock.behind_ns else "-",
        ),
        form=args.output,
        one=True,
    )
