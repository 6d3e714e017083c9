"""`lamina replay`: replays an input log, which gives the same event log again, byte for byte."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_cli.client.client import add_form, guarded
from lamina_cli.output import printing
from lamina_kit.errors import DataLoss, FailedPrecondition, InvalidArgument, LaminaError, Violation

if TYPE_CHECKING:
    from lamina_cli.stack.recording import Started
    from lamina_kit.gateway.log import EventTally, Header, Record
    from lamina_kit.gateway.log_reader import InputLogReader
    from lamina_kit.gateway.replay import Played


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("log", type=Path, help="input log of a stack, for example of `lamina up --input-log FILE`")
    parser.add_argument(
        "--event-log", type=Path, metavar="FILE", help="write the events of all layers, a JSON line each"
    )
    parser.add_argument(
        "--force", action="store_true", help="replay although something is another; go on when the replay differs"
    )
    parser.add_argument(
        "--until-cut", action="store_true", help="of a log that is cut or damaged, replay what is whole"
    )
    add_form(parser)
    parser.set_defaults(run=lambda args: guarded(lambda: run(args)))


def run(args: argparse.Namespace) -> int:
    """Replays a log. Returns 0 only if the replay went the way of the log.

    Raises:
        DataLoss: `INPUT_LOG_CUT`, `INPUT_LOG_MALFORMED`, `INPUT_LOG_FORMAT_UNKNOWN`, `INPUT_LOG_FOREIGN` or
            `REPLAY_DIVERGED`.
        FailedPrecondition: `REPLAY_DIFFERS`, something is another here than where the log was written;
            `CLOCK_NEEDS_MODEL`, the log asks for engines that no stack in virtual time has.
        InvalidArgument: `LOGS_ARE_ONE_FILE`, the event log would replace the log that is replayed.
    """
    from lamina_cli.stack.virtual_run import with_fixed_hashes
    from lamina_kit.gateway.log_reader import InputLogReader

    if args.event_log is not None and args.event_log.resolve() == args.log.resolve():
        raise InvalidArgument(
            f"the event log would replace the log that is replayed, {args.log}",
            reason="LOGS_ARE_ONE_FILE",
            violations=[Violation("event_log", "names the file of the input log")],
            next_step="name another file with --event-log",
        )
    with_fixed_hashes()
    reader = InputLogReader(args.log)
    scratch = Path(tempfile.mkdtemp(prefix="lamina-"))
    try:
        check(args)
        started = prepared(reader.header, scratch, force=args.force)
        return replay(args, reader, started, scratch)
    finally:
        reader.close()
        shutil.rmtree(scratch, ignore_errors=True)


def check(args: argparse.Namespace) -> None:
    """Reads the whole log once, so that one which is not whole is refused before any work."""
    from lamina_kit.gateway.log_reader import InputLogReader

    reader = InputLogReader(args.log)
    try:
        for _ in reader:
            pass
    except DataLoss as problem:
        if not args.until_cut:
            raise
        warn(f"{problem.message} What stands before is replayed.")
    finally:
        reader.close()


def prepared(header: Header, scratch: Path, *, force: bool) -> Started:
    """Returns what the log's stack was started with, after naming what is another here.

    Raises:
        FailedPrecondition: `REPLAY_DIFFERS` or `CLOCK_NEEDS_MODEL`.
    """
    from lamina_cli.stack import recording, virtual_stack

    recording.without_variables()
    started = recording.restored(header, scratch)
    virtual_stack.check_supported(started.settings)
    found = recording.differences(header, started)
    if found and not force:
        raise FailedPrecondition(
            f"the log was written under other conditions: {'; '.join(found)}",
            reason="REPLAY_DIFFERS",
            next_step="replay it where these are the same, or with --force, which may go another way",
        )
    for line in (*found, *recording.other_software(header)):
        warn(line)
    return started


def replay(args: argparse.Namespace, reader: InputLogReader, started: Started, scratch: Path) -> int:
    """Builds the stack, replays the records, and says what came of it."""
    from lamina_cli.stack.embedded import Stack
    from lamina_cli.stack.recording import tallied
    from lamina_kit.gateway.replay import Replay
    from lamina_kit.virtual.loop import VirtualLoop

    def on_difference(problem: LaminaError) -> None:
        if not args.force:
            raise problem
        warn(problem.message)

    loop = VirtualLoop(started.seed)
    with tallied(args.event_log) as (tally, sink), loop.collecting_garbage():
        recording = [True]
        stack = Stack(started.settings, scratch / "state", lambda entry: sink(entry) if recording[0] else None)
        try:
            loop.run_until_complete(stack.start())
            player = Replay(loop, stack.servers(), tally, on_difference)
            played = player.play(whole(reader) if args.until_cut else reader, stack.stop)
        finally:
            recording[0] = False  # what a stop that is not the log's does is no part of the run
            loop.run_until_complete(stack.stop())
        tell(played, tally, args.output)
    return 1 if played.differences else 0


def whole(reader: InputLogReader) -> Iterator[Record]:
    """Yields the records of a log up to the place where it is cut or damaged."""
    records = iter(reader)
    while True:
        try:
            record = next(records, None)
        except DataLoss:
            return
        if record is None:
            return
        yield record


def tell(played: Played, tally: EventTally, form: str) -> None:
    """Prints what was replayed."""
    if form == "json":
        printing.as_json(
            {
                "records": played.records,
                "calls": played.calls,
                "time_ns": played.now_ns,
                "events": tally.count,
                "event_log_sha256": tally.sha256,
                "stopped": played.stopped,
                "differences": played.differences,
            }
        )
        return
    span = printing.span(played.now_ns)
    print(f"replayed {played.records} records with {played.calls} calls, {span} of the stack's time")
    print(f"{tally.count} events, SHA-256 {tally.sha256}")
    print("the same as the log says" if not played.differences else f"{played.differences} differences from the log")


def warn(text: str) -> None:
    """Prints a warning."""
    print(f"warning: {text}", file=sys.stderr)
