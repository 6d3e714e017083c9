"""Replays against libCacheSim, on one trace, in turns: run by `./run bench replay`.

    python bench/memory/replay.py [--accesses 10000000] [--rounds 3]

The trace is 10 million accesses that follow Zipf's law (power 1.0) over a million pages, scattered. libCacheSim's LRU
is tuned: its hash table is made for the pages (hashpower 20), it reads its own binary format from the page cache, and
sizes of objects are ignored. Ours reads raw addresses from memory, finds pages, and replays. Times are the processor's;
the machine is shared, so only ratios within a round count, and the median of them is shown.
Miss counts must be equal. Then what the contract adds, other policies, and miss-ratio curves.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import libcachesim
import numpy as np
from lamina.mmu.v1 import replay_pb2 as pb
from lamina.mmu.v1 import replay_pb2_grpc as rpc

from lamina_cli.stack.single_layer import alone
from lamina_mmu.domain.policies.catalogue import OWN
from lamina_mmu.replay.outcome import Curve, Outcome, Result
from lamina_mmu.replay.plan import CurvePlan, Format, PolicyPlan, ReplayPlan, TlbPlan
from lamina_mmu.replay.replay import Replay

PAGES = 1_000_000
SIZES = {"1 %": 10_000, "10 %": 100_000}
CHUNK = 1 << 20
TLB = TlbPlan(64, 4, 1536, 12)
PLAIN, FULL = 2.0, 1.0
CURVE_SECONDS = 10.0
RECORD = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
AIMS: dict[str, tuple[float, dict[str, Any]]] = {
    "no TLB": (PLAIN, {}),
    "TLB": (FULL, {"tlb": TLB}),
    "TLB and table bits": (FULL, {"tlb": TLB, "table_bits": True}),
}


def zipf(accesses: int) -> Any:
    """Returns the pages of a Zipf trace, scattered over their numbers."""
    rng = np.random.default_rng(42)
    weights = 1.0 / np.arange(1, PAGES + 1)
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(accesses))
    return rng.permutation(PAGES).astype(np.uint64)[np.minimum(ranks, PAGES - 1)]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns how long the processor works, in seconds, and what comes out; both sides have one thread."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def ours(data: bytes, names: list[str], frames: list[int], **more: Any) -> list[Outcome]:
    """Replays raw addresses and returns what came out."""
    plan = ReplayPlan(tuple(map(PolicyPlan, names)), tuple(frames), format=Format.RAW_U64, **more)
    with tempfile.TemporaryDirectory(prefix="lamina-bench-") as folder:
        replay = Replay(plan, Path(folder), 1)
        for start in range(0, len(data), CHUNK):
            for _ in replay.chunk(data[start : start + CHUNK]):
                pass
        for _ in replay.end():
            pass
        found = [one for one in replay.outcomes() if one is not None]
        replay.close()
        return found


def theirs(path: Path, length: int, frames: int) -> int:
    """Returns the misses of libCacheSim's LRU."""
    peer: Any = libcachesim
    options = peer.ReaderInitParam(ignore_obj_size=True)
    reader = peer.TraceReader(str(path), peer.TraceType.ORACLE_GENERAL_TRACE, options)
    ratio: float = peer.LRU(cache_size=frames, hashpower=20).process_trace(reader)[0]
    return round(ratio * length)


def against_the_peer(data: bytes, path: Path, accesses: int, rounds: int) -> bool:
    """Prints speeds of LRU and their ratios; returns whether misses are equal and the aims are met."""
    print(f"{'LRU':22}{'frames':>8}{'theirs M/s':>12}{'ours M/s':>10}{'ratio':>8}{'aim':>6}   misses")
    good = True
    for share, frames in SIZES.items():
        for name, (aim, more) in AIMS.items():
            pairs, misses = [], set()
            for _ in range(rounds):
                slow, expected = timed(partial(theirs, path, accesses, frames))
                quick, found = timed(partial(ours, data, ["lru"], [frames], **more))
                pairs.append((slow, quick))
                result = next(one for one in found if isinstance(one, Result))
                misses.add((expected, result.counts.misses))
            ratio = statistics.median(slow / quick for slow, quick in pairs)
            peer, mine = (accesses / statistics.median(pair[side] for pair in pairs) / 1e6 for side in (0, 1))
            equal = all(left == right for left, right in misses)
            verdict = "equal" if equal else "sampled" if "table_bits" in more else f"DIFFER {misses}"
            print(f"{name:22}{share:>8}{peer:12.1f}{mine:10.1f}{ratio:8.2f}{aim:6.1f}   {verdict}")
            good &= ratio >= aim and (equal or "table_bits" in more)
    return good


def every_policy(data: bytes, accesses: int) -> None:
    """Prints the speed of each policy, and of all at once."""
    print(f"\n{'policy':22}{'1 % M/s':>10}{'10 % M/s':>10}")
    for name in OWN:
        rates = [accesses / timed(partial(ours, data, [name], [frames]))[0] / 1e6 for frames in SIZES.values()]
        print(f"{name:22}{rates[0]:10.1f}{rates[1]:10.1f}")
    online = [name for name in OWN if name != "opt"]
    seconds, _ = timed(lambda: ours(data, online, list(SIZES.values())))
    print(f"all but opt, both sizes, one pass: {seconds:.1f} s, {20 * accesses / seconds / 1e6:.1f} M/s in all")


def curve(data: bytes) -> bool:
    """Prints how long LRU's curve for all sizes takes; returns whether it is in time."""
    seconds, found = timed(lambda: ours(data, ["lru"], [10_000], curve=CurvePlan((PolicyPlan("lru"),))))
    points = next(len(one.frames) for one in found if isinstance(one, Curve))
    print(
        f"\nmiss-ratio curve of lru, {points:,} sizes, with one replay: {seconds:.1f} s (aim < {CURVE_SECONDS:.0f} s)"
    )
    return seconds < CURVE_SECONDS


async def through_the_contract(data: bytes, accesses: int) -> None:
    """Prints the speed of LRU over the in-process channel."""

    async def requests() -> AsyncIterator[pb.ReplayRequest]:
        policies = [pb.ReplayPolicy(policy="lru")]
        form = pb.ReplayOpen.FORMAT_RAW_U64
        yield pb.ReplayRequest(open=pb.ReplayOpen(format=form, policies=policies, frames=[10_000]))
        for start in range(0, len(data), CHUNK):
            yield pb.ReplayRequest(chunk=data[start : start + CHUNK])
        yield pb.ReplayRequest(end=pb.ReplayEnd())

    with alone("mmu") as channel:
        began = time.perf_counter()
        async for _ in rpc.ReplaysStub(channel).Replay(requests()):
            pass
        print(f"\nLRU, 1 %, through the contract in process: {accesses / (time.perf_counter() - began) / 1e6:.1f} M/s")


def main() -> int:
    """Runs all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accesses", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="only the comparison")
    args = parser.parse_args()
    pages = zipf(args.accesses)
    data = (pages << np.uint64(12)).tobytes()
    records = np.zeros(args.accesses, RECORD)
    records["key"], records["size"], records["next"] = pages + np.uint64(1), 1, -1
    with tempfile.TemporaryDirectory(prefix="lamina-bench-") as folder:
        path = Path(folder) / "zipf.oracleGeneral"
        records.tofile(path)
        good = against_the_peer(data, path, args.accesses, args.rounds)
    if not args.short:
        asyncio.run(through_the_contract(data, args.accesses))
        good &= curve(data)
        every_policy(data, args.accesses)
    print(f"aims: {'met' if good else 'missed'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
