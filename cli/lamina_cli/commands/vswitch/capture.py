"""`lamina vswitch capture`: frames into a pcapng file, or live into Wireshark."""

from __future__ import annotations

import argparse
import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lamina_cli.client.client import Client, command
from lamina_cli.commands.vswitch.names import in_switch, port_name, switch_name
from lamina_cli.input import parse
from lamina_cli.stack.stop_signal import StopSignal

if TYPE_CHECKING:
    from lamina.vswitch.v1.captures_pb2 import CaptureFramesRequest

    from lamina_kit.errors import InvalidArgument

DIRECTIONS = {"both": 0, "in": 1, "out": 2}


def configure(verbs: Any) -> None:
    """Adds `capture`."""
    sub = verbs.add_parser("capture", help="write frames to a pcapng file; -w - is for wireshark -k -i -")
    sub.add_argument(
        "words",
        nargs="*",
        metavar="SWITCH|SWITCH/PORT|FILTER",
        help="where, unless --switch or --port says that; then a filter, for example: tcp port 80",
    )
    sub.add_argument("--switch", default="", help="all ports of this switch")
    sub.add_argument(
        "--port", action="append", default=[], help="SWITCH/PORT, a PORT of --switch, or in full; repeatable"
    )
    sub.add_argument("-w", "--write", required=True, metavar="FILE", help="the file; - is standard output")
    sub.add_argument("--direction", choices=sorted(DIRECTIONS), default="both", help="seen from the switch")
    sub.add_argument("--drops", action="store_true", help="dropped frames too, with their reasons")
    sub.add_argument("--only-drops", action="store_true", help="dropped frames alone")
    sub.add_argument("-c", "--count", type=parse.INT64, default=0, help="end after so many frames")
    sub.add_argument("--duration", type=parse.duration, default=0, help="end after a time such as 10s")
    sub.add_argument("--snap", type=parse.INT32, default=0, metavar="BYTES", help="keep the first bytes of each frame")
    sub.add_argument("--buffer", type=parse.size, default=0, metavar="SIZE", help="may wait for us, default 4MiB")
    command(sub, capture)


async def capture(client: Client, args: argparse.Namespace) -> None:
    """Writes what passes until a limit, Ctrl-C, or whoever reads standard output goes."""
    from lamina.vswitch.v1 import captures_pb2_grpc

    if args.write == "-" and sys.stdout.isatty():
        raise _terminal()
    request = await _request(client, args)
    stop = StopSignal()
    stop.install()
    call = client.stub("vswitch", captures_pb2_grpc.CapturesStub).CaptureFrames(request)
    ending = asyncio.get_running_loop().create_task(stop.cancels(call))
    if args.write == "-":
        _end_with_reader(stop)
    where = "standard output" if args.write == "-" else args.write
    out: BinaryIO | None = None
    frames = lost = 0
    try:
        async for piece in call:
            out = out or _opened(args.write)  # a capture that is refused leaves an older file alone
            out.write(piece.data)
            out.flush()
            frames, lost = frames + piece.frames, piece.lost_frames
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered has nobody to go to
    except asyncio.CancelledError:
        if not stop.told.is_set():
            raise
    finally:
        ending.cancel()
        call.cancel()
        if out is not None:
            if args.write != "-":
                out.close()
            print(f"{frames} frames written to {where}, {lost} lost", file=sys.stderr)


def _terminal() -> InvalidArgument:
    from lamina_kit.errors import InvalidArgument

    return InvalidArgument(
        "standard output is a terminal, and a capture is bytes",
        reason="TERMINAL",
        next_step="give -w FILE, or a program that reads it, for example: -w - | tshark -r -",
    )


def _end_with_reader(stop: StopSignal) -> None:
    """Ends the capture when whoever reads our pipe goes, also while there is nothing to write."""
    loop, pipe = asyncio.get_running_loop(), sys.stdout.fileno()

    def gone() -> None:
        loop.remove_reader(pipe)
        stop.told.set()

    if stat.S_ISFIFO(os.fstat(pipe).st_mode):
        loop.add_reader(pipe, gone)


def _opened(path: str) -> BinaryIO:
    from lamina_kit.errors import InvalidArgument

    if path == "-":
        return sys.stdout.buffer
    try:
        return Path(path).open("wb")
    except OSError as error:
        raise InvalidArgument(
            f"{path} cannot be written: {error.strerror}",
            reason="FILE_REFUSED",
            next_step="give a file in a folder that exists and is yours, or - for standard output",
        ) from error


async def _request(client: Client, args: argparse.Namespace) -> CaptureFramesRequest:
    from lamina.vswitch.v1 import captures_pb2

    switch, ports, words = await _where(client, args)
    return captures_pb2.CaptureFramesRequest(
        switch=switch,
        ports=ports,
        direction=captures_pb2.Direction.ValueType(DIRECTIONS[args.direction]),
        drops=args.drops,
        only_drops=args.only_drops,
        filter=" ".join(words),
        snap_bytes=args.snap,
        frame_limit=args.count,
        duration_ns=args.duration,
        buffer_bytes=min(args.buffer, 2**31 - 1),
    )


async def _where(client: Client, args: argparse.Namespace) -> tuple[str, list[str], list[str]]:
    """Returns the switch, the ports (none: all of the switch) and the words of the filter."""
    from lamina_kit.errors import InvalidArgument

    words = list(args.words)
    switch = await switch_name(client, args.switch) if args.switch else ""
    named = list(args.port)
    if not switch and not all("/" in text for text in named or [""]):
        if not words:
            raise InvalidArgument(
                "nothing is named to capture from",
                reason="SWITCH_MISSING",
                next_step="give SWITCH or SWITCH/PORT first, or --switch SWITCH, or --port SWITCH/PORT",
            )
        place = words.pop(0)
        if not named and ("/ports/" in place or place.count("/") == 1):
            named.append(place)
        else:
            switch = await switch_name(client, place)
    if switch:
        return switch, [await in_switch(client, switch, "ports", text) for text in named], words
    ports = [await port_name(client, text) for text in named]
    return ports[0].rpartition("/ports/")[0], ports, words
