"""Replays miss as often as libCacheSim does, for every policy that it has, to the last access.

libCacheSim counts objects of size 1 here, so its bytes are our frames. From 20 frames on: below, its S3-FIFO has a
small queue of one page and takes nothing in (`domain/policies/s3fifo.py`).
Source: https://github.com/1a1a11a/libCacheSim, PyPI `libcachesim`.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import libcachesim
import numpy as np
import pytest
from tests.property.mmu.replaying import plan, replayed, results
from tests.property.mmu.traces import REAL, SIZES, TRACES

from lamina_mmu.replay.plan import Format, PolicyPlan, ReplayPlan
from lamina_mmu.replay.traces.accesses import Trace

PEERS: dict[str, Any] = {
    "fifo": libcachesim.FIFO,
    "lru": libcachesim.LRU,
    "clock": libcachesim.Clock,
    "second-chance": libcachesim.Clock,
    "lfu": libcachesim.LFU,
    "2q": libcachesim.TwoQ,
    "arc": libcachesim.ARC,
    "sieve": libcachesim.Sieve,
    "s3fifo": libcachesim.S3FIFO,
    "opt": libcachesim.Belady,
}
RECORD = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])


def oracle_general(trace: Any) -> bytes:
    """Returns a trace as libCacheSim reads it, with next uses; never again is as far away as a number goes."""
    records = np.zeros(len(trace), RECORD)
    records["key"], records["size"] = trace, 1
    ahead: dict[int, int] = {}
    never = np.iinfo(np.int64).max
    for at in range(len(trace) - 1, -1, -1):
        records["next"][at] = ahead.get(int(trace[at]), never)
        ahead[int(trace[at])] = at
    return records.tobytes()


def peer_misses(name: str, path: Path, length: int, frames: int) -> int:
    """Returns libCacheSim's misses."""
    peer: Any = libcachesim
    options = peer.ReaderInitParam(ignore_obj_size=True)
    reader = peer.TraceReader(str(path), peer.TraceType.ORACLE_GENERAL_TRACE, options)
    ratio: float = PEERS[name](cache_size=frames, hashpower=16).process_trace(reader)[0]
    return round(ratio * length)


def pages_of_a_program() -> Any:
    """Returns the pages of a real program's accesses, as the replay reads them from lackey's text."""
    wanted = ReplayPlan((PolicyPlan("lru"),), (1,), format=Format.LACKEY)
    trace = Trace(wanted)
    data = gzip.decompress(REAL.read_bytes())
    parts = [columns.addresses >> np.uint64(12) for columns in [*trace.feed(data), *trace.end()]]
    return np.concatenate(parts) + np.uint64(1)


@pytest.mark.parametrize("name", [*TRACES, "a program"])
def test_misses_are_those_of_libcachesim(name: str, tmp_path: Path) -> None:
    """Every policy with three sizes misses exactly as often."""
    trace = TRACES[name]() if name in TRACES else pages_of_a_program()
    path = tmp_path / "trace.oracleGeneral"
    path.write_bytes(oracle_general(trace))
    found = results(replayed(plan(list(PEERS), SIZES), trace.tolist()))
    ours = {key: result.counts.misses for key, result in found.items()}
    theirs = {(peer, frames): peer_misses(peer, path, len(trace), frames) for peer in PEERS for frames in SIZES}
    assert ours == theirs
