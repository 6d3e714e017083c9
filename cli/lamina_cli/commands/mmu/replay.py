"""`lamina mmu replay`: what a trace would have met with other policies and other amounts of memory.

It needs no stack: the replay runs in this process, behind the same contract; with `--stack` it runs in one that is up.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import add_form, attempt, client_of, guarded
from lamina_cli.commands.mmu import replay_tables, trace_files
from lamina_cli.input import parse
from lamina_cli.output import progress

if TYPE_CHECKING:
    from lamina.mmu.v1 import replay_pb2 as pb

DEFAULT_POLICIES = "lru"


def configure(verbs: Any) -> None:
    """Adds the sub-command."""
    parser = verbs.add_parser("replay", help="replay a trace of accesses through policies, TLB and table bits")
    add = parser.add_argument
    add("trace", help="file of accesses, or - for standard input")
    policies = "fifo lru clock second-chance lfu 2q arc sieve s3fifo mglru opt (default: lru)"
    add("--policy", type=names, default=names(DEFAULT_POLICIES), metavar="NAME[,NAME…]", help=policies)
    add("--frames", type=counts, required=True, metavar="N[,N…]", help="numbers of frames")
    levels = "a TLB of one or two levels, for example 64:4,1536:12"
    add("--tlb", type=tlb, metavar="ENTRIES[:WAYS][,ENTRIES[:WAYS]]", help=levels)
    add("--table-bits", action="store_true", help="let policies see sampled accessed bits alone")
    add("--format", choices=tuple(trace_files.FORMATS), help="how the trace is written (default: seen)")
    add("--compression", choices=tuple(trace_files.COMPRESSIONS), help="how it is compressed (default: seen)")
    add("--page-size", type=parse.size, metavar="SIZE", help="bytes of a page (default: 4096; keys: 1)")
    add("--warmup", type=parse.whole(0, 1 << 36), default=0, metavar="N", help="accesses not to count")
    add("--explain", type=parse.whole(0, 10_000), default=0, metavar="N", help="show the first N evictions and why")
    add("--curve", action="store_true", help="miss-ratio curves, that of lru exactly and for all sizes")
    add("--points", type=parse.whole(0, 1_000_000), default=0, metavar="N", help="most points of a curve")
    add("--sample", type=parse.whole(0, 1_000_000), default=0, metavar="N", help="draw curves from one of N pages")
    add("--plot", metavar="FILE", help="draw the curves into FILE.svg or FILE.png")
    add("--partial", action="store_true", help="take a trace that is cut off as far as it goes")
    add("--stack", default="", metavar="NAME", help="replay in this stack, which is up (default: here)")
    add("--host", default="", metavar="NAME", help="in which of its hosts")
    add("--tls-dir", default="", metavar="DIR", help="certificates to call it with")
    add_form(parser)
    parser.set_defaults(run=lambda args: guarded(lambda: asyncio.run(_replay(args))))


def names(text: str) -> tuple[str, ...]:
    """Returns the names of a list with commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def counts(text: str) -> tuple[int, ...]:
    """Returns the numbers of a list with commas, each once."""
    read = parse.whole(-(1 << 63), (1 << 63) - 1)
    return tuple(dict.fromkeys(read(part.strip()) for part in text.split(",")))


def tlb(text: str) -> tuple[int, int, int, int]:
    """Returns entries and ways of both levels of `64:4,1536:12`; ways left out are 4 and 12, or fewer that divide."""
    levels: list[int] = []
    if parse.INT32(text.split(",")[0].partition(":")[0].strip()) < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} gives the first level no entries; without --tlb there is none")
    for part, usual in zip([*text.split(","), "0"][:2], (4, 12), strict=True):
        entries, _, ways = part.strip().partition(":")
        count = parse.INT32(entries)
        levels += [count, parse.INT32(ways) if ways else usual_ways(count, usual)]
    if text.count(",") > 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} names more than two levels")
    return levels[0], levels[1], levels[2], levels[3]


def usual_ways(entries: int, usual: int) -> int:
    """Returns the largest number of ways up to the usual one that divides the entries."""
    return next((ways for ways in range(usual, 0, -1) if entries % ways == 0), 1)


async def _replay(args: argparse.Namespace) -> int:
    return await attempt(_run(args))


async def _run(args: argparse.Namespace) -> int:
    """Replays and prints."""
    from lamina.mmu.v1 import replay_pb2_grpc

    if args.plot:
        replay_tables.check_plot(args.plot)
    with trace_files.opened(args.trace) as source:
        opening = request_of(args, source)
        async with channel(args) as found:
            call = replay_pb2_grpc.ReplaysStub(found).Replay(requests(opening, source))
            answers = await collected(call, opening)
    replay_tables.show(answers, opening, form=args.output)
    if args.plot:
        replay_tables.plot(args.plot, answers)
    return 0


def request_of(args: argparse.Namespace, source: trace_files.Source) -> pb.ReplayOpen:
    """Returns what is asked for; format and compression are those of the trace unless they are named."""
    from lamina.mmu.v1 import replay_pb2 as pb

    compression = args.compression or source.compression
    form = args.format or source.format(compression)
    opening = pb.ReplayOpen(
        format=pb.ReplayOpen.Format.Value(trace_files.FORMATS[form]),
        compression=pb.ReplayOpen.Compression.Value(trace_files.COMPRESSIONS[compression]),
        policies=[pb.ReplayPolicy(policy=name) for name in args.policy],
        frames=args.frames,
        page_size_bytes=args.page_size or (1 if form == "oracleGeneral" else 0),
        warmup_accesses=args.warmup,
        table_bits=args.table_bits,
        explain_evictions=args.explain,
        partial=args.partial,
    )
    if args.tlb:
        entries, ways, second, second_ways = args.tlb
        opening.tlb.CopyFrom(pb.ReplayTlb(entries=entries, ways=ways, second_entries=second, second_ways=second_ways))
    if args.curve or args.plot:
        opening.curve.CopyFrom(pb.ReplayCurve(policies=args.policy, sample=args.sample, points=args.points))
    return opening


@asynccontextmanager
async def channel(args: argparse.Namespace) -> AsyncIterator[Any]:
    """Gives a channel to the MMU of a stack that is up, or to one in this process that has no RAM."""
    from lamina_cli.client import home
    from lamina_cli.stack.single_layer import alone

    if args.stack:
        async with client_of(home.running(args.stack), args.host, args.tls_dir) as client:
            yield client.channel("mmu")
        return
    with alone("mmu") as found:
        yield found


async def requests(opening: pb.ReplayOpen, source: trace_files.Source) -> AsyncIterator[pb.ReplayRequest]:
    """Yields the messages of a replay."""
    from lamina.mmu.v1 import replay_pb2 as pb

    yield pb.ReplayRequest(open=opening)
    for chunk in source.chunks():
        yield pb.ReplayRequest(chunk=chunk)
    yield pb.ReplayRequest(end=pb.ReplayEnd())


async def collected(call: Any, opening: pb.ReplayOpen) -> replay_tables.Answers:
    """Returns what came out; on the way, progress is shown when there is much to read."""
    answers = replay_tables.Answers([], [], {})
    line: progress.Line | None = None
    async for response in call:
        kind = response.WhichOneof("response")
        if kind == "progress" and response.progress.accesses >= 10_000_000:
            line = line or progress.Line("replay")
            line.step(f"{response.progress.accesses:,} accesses, {response.progress.distinct_pages:,} pages")
        elif kind == "result":
            answers.results.append(response.result)
        elif kind == "explanation":
            answers.explanations.append(response.explanation)
        elif kind == "curve":
            answers.curves.setdefault(response.curve.policy, []).append(response.curve)
    if line is not None:
        line.done()
    return answers
