"""`Replays.Replay` through the contract: what a trace gives, and what it refuses."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import Any

import pytest
import zstandard
from lamina.mmu.v1 import group_events_pb2
from lamina.mmu.v1 import replay_pb2 as pb
from lamina.mmu.v1 import replay_pb2_grpc as rpc
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import Stack

BELADY = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]
RAW = b"".join((page * 4096).to_bytes(8, "little") for page in BELADY)
END = pb.ReplayRequest(end=pb.ReplayEnd())


def opening(*policies: str, **fields: Any) -> pb.ReplayRequest:
    """Returns the first message."""
    wanted = [pb.ReplayPolicy(policy=name) for name in policies or ("fifo",)]
    return pb.ReplayRequest(
        open=pb.ReplayOpen(**{"format": pb.ReplayOpen.FORMAT_RAW_U64, "policies": wanted, "frames": (3, 4), **fields})
    )


def chunk(data: bytes) -> pb.ReplayRequest:
    """Returns bytes of a trace."""
    return pb.ReplayRequest(chunk=data)


async def replay(stack: Stack, *messages: pb.ReplayRequest) -> list[Any]:
    """Returns what a replay answers, without its progress."""

    async def requests() -> Any:
        for message in messages:
            yield message

    found = []
    async for response in rpc.ReplaysStub(stack.channel).Replay(requests()):
        kind = response.WhichOneof("response")
        if kind and kind != "progress":
            found.append(getattr(response, kind))
    return found


async def test_results_come_in_the_order_of_the_request(stack: Stack) -> None:
    """Each policy with each size, first touches and hits counted; more memory is worse for FIFO here."""
    found = await replay(stack, opening("fifo", "opt", "lru"), chunk(RAW), END)
    assert [(one.policy, one.frames, one.misses, one.hits) for one in found] == [
        ("fifo", 3, 9, 3), ("fifo", 4, 10, 2), ("opt", 3, 7, 5), ("opt", 4, 6, 6), ("lru", 3, 10, 2), ("lru", 4, 8, 4),
    ]  # fmt: skip
    assert {(one.accesses, one.cold_misses, one.distinct_pages, one.truncated) for one in found} == {(12, 5, 5, False)}
    assert [one.evictions for one in found] == [6, 6, 4, 2, 7, 4]


async def test_numbers_of_frames_may_repeat(stack: Stack) -> None:
    """Each is answered, with its explanation, in the order of the request."""
    opened = opening("lru", "opt", frames=(3, 4, 3), explain_evictions=1)
    found = await replay(stack, opened, chunk(RAW), END)
    assert [one.misses for one in found[:6]] == [10, 8, 10, 7, 6, 7]
    assert [one.frames for one in found[6:]] == [3, 4, 3] * 2


@pytest.mark.parametrize("size", [1, 7, 8, 50, 1000])
async def test_chunks_may_end_anywhere(stack: Stack, size: int) -> None:
    """A trace in pieces of any size is the same trace."""
    pieces = [chunk(RAW[start : start + size]) for start in range(0, len(RAW), size)]
    assert await replay(stack, opening(), *pieces, END) == await replay(stack, opening(), chunk(RAW), END)


CSV = "address,kind,size\r\n" + "".join(f"{page * 4096:#x},w,1\n" for page in BELADY)
LACKEY = "==7== Lackey\n" + "".join(f" S {page * 4096:08x},8\n" for page in BELADY)
ORACLE = b"".join(
    bytes(4) + page.to_bytes(8, "little") + (1 << 30).to_bytes(4, "little") + (-1).to_bytes(8, "little", signed=True)
    for page in BELADY
)


@pytest.mark.parametrize("packed", ["COMPRESSION_NONE", "COMPRESSION_GZIP", "COMPRESSION_ZSTD"])
@pytest.mark.parametrize("form", ["FORMAT_RAW_U64", "FORMAT_CSV", "FORMAT_LACKEY", "FORMAT_ORACLE_GENERAL"])
async def test_every_format_gives_the_same(stack: Stack, form: str, packed: str) -> None:
    """The same accesses in four formats and three compressions miss as often; writes are written back."""
    data = {"FORMAT_RAW_U64": RAW, "FORMAT_CSV": CSV.encode(), "FORMAT_LACKEY": LACKEY.encode()}.get(form, ORACLE)
    pack: Any = {"COMPRESSION_GZIP": gzip.compress, "COMPRESSION_ZSTD": zstandard.compress}.get(packed, bytes)
    fields: dict[str, Any] = {
        "format": pb.ReplayOpen.Format.Value(form),
        "compression": pb.ReplayOpen.Compression.Value(packed),
        "page_size_bytes": 1 if form == "FORMAT_ORACLE_GENERAL" else 0,
    }
    body = pack(data[:100]) + pack(data[100:])  # members, or frames, one behind the other
    found = await replay(stack, opening(**fields), *(chunk(body[at : at + 33]) for at in range(0, len(body), 33)), END)
    assert [(one.misses, one.evictions) for one in found] == [(9, 6), (10, 6)]
    written = form in ("FORMAT_CSV", "FORMAT_LACKEY")
    assert [one.write_backs for one in found] == ([6, 6] if written else [0, 0])


def columns(addresses: Iterable[int], kinds: bytes = b"", sizes: Iterable[int] = ()) -> pb.ReplayRequest:
    """Returns decoded accesses."""
    return pb.ReplayRequest(
        columns=pb.TraceColumns(
            addresses=b"".join(address.to_bytes(8, "little") for address in addresses),
            kinds=kinds,
            sizes=b"".join(size.to_bytes(4, "little") for size in sizes),
        )
    )


DECODED: dict[str, Any] = {"format": pb.ReplayOpen.FORMAT_COLUMNS}


async def test_columns_are_accesses(stack: Stack) -> None:
    """An access that crosses a border of pages is several; a write makes a page dirty, a fetch does not."""
    batch = columns([4095, 0x5000, 0x9FFF], bytes([2, 3, 1]), [2, 4096, 1])
    found = await replay(stack, opening(frames=[1], **DECODED), batch, END)
    assert [(one.accesses, one.misses, one.write_backs) for one in found] == [(4, 4, 2)]


async def test_explanations_stand_beside_the_best(stack: Stack) -> None:
    """The first evictions, with when the page is used again and what OPT would have taken."""
    found = await replay(stack, opening("fifo", frames=[3], explain_evictions=2), chunk(RAW), END)
    assert found[1] == pb.ReplayExplanation(
        policy="fifo",
        frames=3,
        evictions=[
            pb.ReplayEviction(access=3, incoming_page=4, page=1, reason="came first, at access 0", next_use=1,
                              best_page=3, best_next_use=6),
            pb.ReplayEviction(access=4, incoming_page=1, page=2, reason="came first, at access 1", next_use=1,
                              best_page=4, best_next_use=6),
        ],
    )  # fmt: skip


async def test_explanations_come_in_pieces(stack: Stack) -> None:
    """At most 1000 evictions a message, and no more than were asked for."""
    trace = b"".join((page * 4096).to_bytes(8, "little") for page in range(4000))
    found = await replay(stack, opening(frames=[1], explain_evictions=2500), chunk(trace), END)
    assert [len(one.evictions) for one in found[1:]] == [1000, 1000, 500]


async def test_curves(stack: Stack) -> None:
    """LRU's for every size in one pass, others by replays; the last piece says so."""
    found = await replay(stack, opening("lru", curve=pb.ReplayCurve(policies=["lru", "opt"])), chunk(RAW), END)
    assert found[2:] == [
        pb.MissRatioCurve(policy="lru", frames=range(1, 6), misses=[12, 12, 10, 8, 5], accesses=12, last=True),
        pb.MissRatioCurve(policy="opt", frames=range(1, 6), misses=[12, 9, 7, 6, 5], accesses=12, last=True),
    ]


async def test_progress_and_the_pieces_of_a_long_curve(stack: Stack) -> None:
    """Progress tells accesses, bytes and pages; a curve of more than 65536 points comes in pieces."""
    seen = b"".join((page * 4096).to_bytes(8, "little") for page in range(70_000))

    async def requests() -> Any:
        yield opening("lru", progress_accesses=10_000, curve=pb.ReplayCurve(policies=["lru"]))
        yield chunk(seen)
        yield END

    responses = [one async for one in rpc.ReplaysStub(stack.channel).Replay(requests())]
    reports = [one.progress for one in responses if one.HasField("progress")]
    assert reports[-1] == pb.ReplayProgress(accesses=70_000, trace_bytes=len(seen), distinct_pages=70_000)
    assert [one.accesses for one in reports] == sorted({one.accesses for one in reports})
    pieces = [one.curve for one in responses if one.HasField("curve")]
    assert [(len(one.frames), one.last) for one in pieces] == [(65_536, False), (4_464, True)]


async def test_a_caller_may_write_everything_before_it_reads(stack: Stack) -> None:
    """Reports that nobody has read yet hold nothing up."""
    call = rpc.ReplaysStub(stack.channel).Replay()
    await call.write(opening(progress_accesses=10_000))
    for _ in range(40):
        await call.write(chunk(RAW * 5000))
    await call.write(END)
    await call.done_writing()
    found = [response async for response in call]
    assert found[-1].result.accesses == 40 * 5000 * len(BELADY)


async def test_a_tlb_of_one_entry_hits_what_comes_again_at_once(stack: Stack) -> None:
    """TLB hits and misses are counted for each policy and size."""
    found = await replay(stack, opening(tlb=pb.ReplayTlb(entries=1, ways=1)), chunk(RAW + RAW[-8:]), END)
    assert [(one.tlb_hits, one.tlb_second_hits, one.tlb_misses) for one in found] == [(1, 0, 12), (1, 0, 12)]


async def test_warm_up_and_parameters(stack: Stack) -> None:
    """Accesses of the warm-up are not counted; parameters are text."""
    policy = pb.ReplayPolicy(policy="clock", parameters=[group_events_pb2.PolicyParameter(name="bits", value="3")])
    found = await replay(stack, opening(policies=[policy], warmup_accesses=7), chunk(RAW), END)
    assert [(one.accesses, one.hits + one.misses, one.cold_misses) for one in found] == [(5, 5, 0), (5, 5, 0)]


WRONG: dict[str, tuple[list[pb.ReplayRequest], str, str]] = {
    "nothing": ([], "FAILED_PRECONDITION", "REPLAY_NOT_OPENED"),
    "no opening": ([chunk(RAW)], "FAILED_PRECONDITION", "REPLAY_NOT_OPENED"),
    "two openings": ([opening(), opening()], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "unknown policy": ([opening("lur")], "NOT_FOUND", "POLICY_UNKNOWN"),
    "no policy": ([opening(policies=[])], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "unknown curve": ([opening(curve=pb.ReplayCurve(policies=["x"]))], "NOT_FOUND", "POLICY_UNKNOWN"),
    "no format": ([opening(format=0)], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "a format of tomorrow": ([opening(format=77)], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "no frames": ([opening(frames=[])], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "0 frames": ([opening(frames=[0])], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "too many frames": ([opening(frames=[(1 << 32) + 1])], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "too many sizes": ([opening(frames=range(1, 66))], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "odd page size": ([opening(page_size_bytes=3000)], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "negative warm-up": ([opening(warmup_accesses=-1)], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "ways that do not divide": ([opening(tlb=pb.ReplayTlb(ways=5))], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "negative ways": ([opening(tlb=pb.ReplayTlb(ways=-4))], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "one point": ([opening(curve=pb.ReplayCurve(policies=["lru"], points=1))], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "a parameter that is none": (
        [opening(policies=[pb.ReplayPolicy(policy="lru", parameters=[group_events_pb2.PolicyParameter(name="x")])])],
        "INVALID_ARGUMENT",
        "POLICY_PARAMETER_INVALID",
    ),
    "columns to a file": ([opening(), columns([1])], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "a file to columns": ([opening(**DECODED), chunk(RAW)], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "a large chunk": ([opening(), chunk(bytes((1 << 20) + 1))], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "unequal kinds": ([opening(**DECODED), columns([1, 2], b"\x01")], "INVALID_ARGUMENT", "TRACE_COLUMNS_UNEQUAL"),
    "unequal sizes": ([opening(**DECODED), columns([1], b"", [1, 2])], "INVALID_ARGUMENT", "TRACE_COLUMNS_UNEQUAL"),
    "unknown kind": ([opening(**DECODED), columns([1], b"\x04")], "INVALID_ARGUMENT", "REQUEST_INVALID"),
    "beyond 2^64": (
        [opening(**DECODED), columns([(1 << 64) - 1], b"", [2])], "INVALID_ARGUMENT", "TRACE_MALFORMED",
    ),
    "cut in a record": ([opening(), chunk(RAW[:-1]), END], "INVALID_ARGUMENT", "TRACE_TRUNCATED"),
    "no end": ([opening(), chunk(RAW)], "INVALID_ARGUMENT", "TRACE_TRUNCATED"),
    "no gzip": ([opening(compression=2), chunk(RAW)], "INVALID_ARGUMENT", "TRACE_MALFORMED"),
    "no zstd": ([opening(compression=3), chunk(RAW)], "INVALID_ARGUMENT", "TRACE_MALFORMED"),
    "empty gzip": ([opening(compression=2), END], "INVALID_ARGUMENT", "TRACE_TRUNCATED"),
    "cut gzip": (
        [opening(compression=2), chunk(gzip.compress(RAW)[:-9]), END], "INVALID_ARGUMENT", "TRACE_TRUNCATED",
    ),
    "cut zstd": (
        [opening(compression=3), chunk(zstandard.compress(RAW)[:-3]), END], "INVALID_ARGUMENT", "TRACE_TRUNCATED",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(WRONG))
async def test_what_is_wrong_is_said(stack: Stack, case: str) -> None:
    """Each mistake has its code and reason."""
    messages, code, reason = WRONG[case]
    await expect_refused(replay(stack, *messages), code, reason)


@pytest.mark.inside  # goes on sending after the refusal, which a socket does not let it
@pytest.mark.parametrize(
    ("form", "text", "line", "what"),
    [
        ("CSV", "0x1000,r\nhello,w\n", 2, "address"), ("CSV", "4096,q\n", 1, "kind"),
        ("CSV", "h,k\n4096,r,0\n", 2, "size"), ("CSV", "1,r,1,1\n", 1, "more than"),
        ("CSV", "h\nh\n", 2, "address"), ("CSV", "1,,8\n", 1, "kind"), ("CSV", "1;2\n", 1, "address"),
        ("CSV", "0x11111111111111111\n", 1, "64 bits"), ("CSV", "18446744073709551616,r\n", 1, "64 bits"),
        ("CSV", "1\n" + "9" * 5000, 2, "bytes"), ("LACKEY", " L 1000,8\n L 1000\n", 2, "lackey"),
        ("LACKEY", " Q 1000,8\n", 1, "lackey"), ("LACKEY", "I  1000,x\n", 1, "size"),
    ],
)  # fmt: skip
async def test_a_wrong_line_is_named(stack: Stack, form: str, text: str, line: int, what: str) -> None:
    """Text that cannot be read is refused with the number of its line and what is wrong in it."""
    request = opening(format=pb.ReplayOpen.Format.Value(f"FORMAT_{form}"))
    message = await expect_refused(
        replay(stack, request, chunk(text.encode()), END), "INVALID_ARGUMENT", "TRACE_MALFORMED"
    )
    assert f"Line {line} " in message and what in message


async def test_a_partial_replay_goes_as_far_as_the_trace(stack: Stack) -> None:
    """A trace that is cut off is an answer when that was asked for, and says so."""
    found = await replay(stack, opening(partial=True), chunk(RAW[:-1]), END)
    assert [(one.accesses, one.truncated) for one in found] == [(11, True), (11, True)]
    assert [one.truncated for one in await replay(stack, opening(partial=True), chunk(RAW))] == [True, True]


async def test_an_empty_trace_is_a_trace(stack: Stack) -> None:
    """Nothing was accessed, nothing missed."""
    found = await replay(stack, opening("lru", "opt", explain_evictions=3, curve=pb.ReplayCurve(policies=["lru"])), END)
    assert [(one.accesses, one.misses) for one in found[:4]] == [(0, 0)] * 4
    assert found[-1] == pb.MissRatioCurve(policy="lru", last=True)
