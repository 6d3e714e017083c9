"""Traces are somebody else's bytes: whatever comes, an answer or a clear error, and the same however it is cut."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.property.mmu.replaying import curves, plan, replayed, results
from tests.property.mmu.traces import zipf

from lamina_kit.errors import InvalidArgument, ResourceExhausted
from lamina_mmu.replay.memory.state import FIRST
from lamina_mmu.replay.plan import Compression, CurvePlan, Format, Limits, PolicyPlan, ReplayPlan
from lamina_mmu.replay.traces.accesses import NO_KINDS, Columns, Trace
from lamina_mmu.replay.traces.pages import PageNumbers
from lamina_mmu.replay.traces.touches import touches

Access = tuple[int, int, int]
KINDS = {"r": 1, "w": 2, "x": 3, "READ": 1, "Write": 2, "execute": 3, "1": 1, "2": 2, "3": 3}
accesses = st.lists(
    st.tuples(st.integers(0, (1 << 64) - 1), st.sampled_from(list(KINDS)), st.integers(1, (1 << 32) - 1)), max_size=40
)


def read(form: Format, data: bytes, step: int = 7, compression: Compression = Compression.NONE) -> list[Access]:
    """Returns the accesses of a trace that comes in pieces of `step` bytes; errors go to the caller."""
    trace = Trace(ReplayPlan((PolicyPlan("lru"),), (1,), format=form, compression=compression))
    found: list[Access] = []
    parts = [data[start : start + step] for start in range(0, len(data), step)]
    for columns in [*(one for part in parts for one in trace.feed(part)), *trace.end()]:
        count = columns.addresses.size
        kinds = columns.kinds if columns.kinds.size else np.ones(count, np.uint8)
        sizes = columns.sizes if columns.sizes.size else np.ones(count, np.uint32)
        found += zip(columns.addresses.tolist(), kinds.tolist(), sizes.tolist(), strict=True)
    if trace.is_truncated:
        raise trace.truncated()
    return found


@given(trace=accesses, step=st.integers(1, 99), last=st.sampled_from(["\n", "", "\r\n"]), hexadecimal=st.booleans())
def test_csv_is_read_as_it_was_written(
    trace: list[tuple[int, str, int]], step: int, last: str, hexadecimal: bool
) -> None:
    """Decimal or 0x, any spelling of a kind, with or without a last line end, in pieces of any size."""
    lines = [
        f"{address:#x},{kind}, {size}" if hexadecimal else f" {address} ,{kind},{size}" for address, kind, size in trace
    ]
    found = read(Format.CSV, ("\n".join(["address,kind,size", *lines]) + last).encode(), step)
    assert found == [(address, KINDS[kind], size) for address, kind, size in trace]


@given(trace=accesses, step=st.integers(1, 99))
def test_lackey_is_read_as_it_was_written(trace: list[tuple[int, str, int]], step: int) -> None:
    """Loads, stores, modifications and instructions, between lines of valgrind's own."""
    letters = {1: " L ", 2: " S ", 3: "I  "}
    lines = [f"{letters[KINDS[kind]]}{address:08x},{size}\n==12== hello\n" for address, kind, size in trace]
    assert read(Format.LACKEY, "".join(lines).encode(), step) == [(a, KINDS[kind], s) for a, kind, s in trace]


@given(text=st.text("019axrw, \n\r\t-=ILSM_é", max_size=60), step=st.integers(1, 9))
@pytest.mark.parametrize("form", [Format.CSV, Format.LACKEY])
def test_any_text_is_read_or_refused(form: Format, text: str, step: int) -> None:
    """Text of any kind gives accesses, or an error that names a line, and the same one however it comes."""
    outcomes = []
    for size in (step, 1000):
        try:
            outcomes.append(str(read(form, text.encode(), size)))
        except InvalidArgument as problem:
            assert problem.reason == "TRACE_MALFORMED" and re.search(r"[Ll]ine \d+", problem.message)
            outcomes.append(problem.message)
    assert outcomes[0] == outcomes[1]


@given(data=st.binary(max_size=200), step=st.integers(1, 50))
@pytest.mark.parametrize("form", list(Format)[1:])
@pytest.mark.parametrize("compression", list(Compression))
def test_any_bytes_are_read_or_refused(form: Format, compression: Compression, data: bytes, step: int) -> None:
    """No bytes do anything but give accesses or one of the errors that the contract names."""
    try:
        read(form, data, step, compression)
    except InvalidArgument as problem:
        assert problem.reason in ("TRACE_MALFORMED", "TRACE_TRUNCATED") and problem.next_step


@given(data=st.binary(max_size=400), cut=st.integers(1, 30), flip=st.integers(0, 500))
@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_cut_and_damaged_streams_are_refused_or_whole(
    compression: Compression, data: bytes, cut: int, flip: int
) -> None:
    """A compressed trace that lacks its end is truncated; one with a changed byte never raises anything of its own."""
    whole = data[: len(data) // 8 * 8]
    checked = zstandard.ZstdCompressor(write_checksum=True).compress
    packed = gzip.compress(whole) if compression == Compression.GZIP else checked(whole)
    assert len(read(Format.RAW_U64, packed, 11, compression)) == len(whole) // 8
    with pytest.raises(InvalidArgument) as refused:
        read(Format.RAW_U64, packed[: -min(cut, len(packed))], 11, compression)
    assert refused.value.reason in ("TRACE_TRUNCATED", "TRACE_MALFORMED")
    damaged = bytearray(packed)
    damaged[flip % len(damaged)] ^= 0x10
    try:
        read(Format.RAW_U64, bytes(damaged), 11, compression)
    except InvalidArgument as problem:
        assert problem.reason in ("TRACE_TRUNCATED", "TRACE_MALFORMED")


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_a_bomb_is_read_a_piece_at_a_time(compression: Compression) -> None:
    """64 MiB of zeros in a few KiB never stand in memory as a whole."""
    zeros = bytes(64 << 20)
    packed = gzip.compress(zeros, 9) if compression == Compression.GZIP else zstandard.compress(zeros, 19)
    trace = Trace(ReplayPlan((PolicyPlan("lru"),), (1,), format=Format.RAW_U64, compression=compression))
    sizes = [columns.addresses.size for part in range(0, len(packed), 1 << 20)
             for columns in trace.feed(packed[part : part + (1 << 20)])]  # fmt: skip
    assert sum(sizes) == (64 << 20) // 8 and max(sizes) <= 1 << 16


@given(trace=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 9000)), max_size=30), shift=st.integers(0, 12))
def test_accesses_touch_the_pages_that_they_cover(trace: list[tuple[int, int]], shift: int) -> None:
    """An access touches each page from its first byte to its last, in order; one of size 0 touches one."""
    columns = Columns(
        np.array([address for address, _ in trace], np.uint64),
        NO_KINDS,
        np.array([size for _, size in trace], np.uint32),
    )
    found = [page for pages, _ in touches(columns, shift, 0) for page in pages.tolist()]
    expected = [
        page for address, size in trace for page in range(address >> shift, ((address + max(size, 1) - 1) >> shift) + 1)
    ]
    assert found == expected


@given(
    st.lists(
        st.one_of(st.integers(0, 100), st.integers(0, (1 << 64) - 1), st.integers(0, 200).map(lambda one: one << 44)),
        max_size=300,
    ),
    st.integers(1, 60),
)
def test_pages_get_numbers_in_the_order_of_their_first_touch(trace: list[int], step: int) -> None:
    """However far apart pages lie, beyond the regions that have tables too, each has one number and can be found."""
    numbers = PageNumbers(5)
    nodes: list[int] = []
    for start in range(0, len(trace), step):
        words = numbers.number(np.array(trace[start : start + step], np.uint64), NO_KINDS)
        nodes += [int(word) >> 1 for word in words]
    order = list(dict.fromkeys(trace))
    assert nodes == [FIRST + order.index(page) for page in trace]
    assert [int(numbers.page_of[FIRST + at]) for at in range(len(order))] == order


def test_a_long_curve_is_exact_where_marks_were_packed() -> None:
    """More accesses than time slots, pages come and go: the curve of LRU is still what replays miss."""
    trace = zipf(7, 50_000, 0.8, 300_000).tolist()
    sizes = (1, 10, 1000, 10_000, 40_000)
    outcomes = replayed(plan(["lru"], sizes, curve=CurvePlan((PolicyPlan("lru"),))), trace, batch=70_001)
    found = curves(outcomes)["lru"]
    exact = results(outcomes)
    assert [found.misses[size - 1] for size in sizes] == [exact["lru", size].counts.misses for size in sizes]


def test_a_sampled_curve_is_near_the_exact_one() -> None:
    """From one of ten pages, misses differ by less than three hundredths of the accesses."""
    trace = zipf(8, 20_000, 0.7, 200_000).tolist()
    names = (PolicyPlan("lru"), PolicyPlan("fifo"))
    whole = curves(replayed(plan(["lru"], [1], curve=CurvePlan(names, points=20)), trace))
    part = curves(replayed(plan(["lru"], [1], curve=CurvePlan(names, sample=10, points=20)), trace))
    for name in ("lru", "fifo"):
        assert whole[name].frames == part[name].frames and len(whole[name].frames) == 20
        for exact, near in list(zip(whole[name].misses, part[name].misses, strict=True))[1:]:
            assert abs(exact - near) < 0.03 * len(trace)


@pytest.mark.parametrize(
    ("limits", "names", "reason"),
    [
        (Limits(memory_bytes=6 << 20), ["lru", "arc"], "REPLAY_TOO_BIG"),
        (Limits(spool_bytes=12 * 50_000), ["opt"], "REPLAY_TOO_BIG"),
        (Limits(accesses=70_000), ["fifo"], "TRACE_TOO_LONG"),
    ],
)
def test_limits_hold(limits: Limits, names: list[str], reason: str) -> None:
    """Memory, disk and length have bounds, which end a replay before they are passed."""
    with pytest.raises(ResourceExhausted) as refused:
        replayed(plan(names, [100]), range(100_000), batch=1000, limits=limits)
    assert refused.value.reason == reason and refused.value.next_step
