"""Contract ↔ replay: checks what is asked, before work; turns outcomes into responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from lamina.mmu.v1 import group_events_pb2
from lamina.mmu.v1 import replay_pb2 as pb

from lamina_kit.checks import Checks, shown
from lamina_kit.errors import InvalidArgument, NotFound
from lamina_mmu.domain.policies.catalogue import OWN
from lamina_mmu.domain.policy import checked
from lamina_mmu.replay.outcome import Curve, Explanation, Outcome, Progress, Result
from lamina_mmu.replay.plan import Compression, CurvePlan, Format, PolicyPlan, ReplayPlan, TlbPlan
from lamina_mmu.replay.traces.accesses import NO_KINDS, NO_SIZES, Columns

MAX_CHUNK = 1 << 20
MAX_COLUMNS = 131_072
MAX_ACCESSES = 1 << 36
EVICTIONS_A_MESSAGE = 1000
POINTS_A_MESSAGE = 65_536


def plan(request: pb.ReplayOpen) -> ReplayPlan:
    """Returns what a replay is asked to do. INVALID_ARGUMENT, or POLICY_UNKNOWN."""
    page_size = request.page_size_bytes or 4096
    progress = request.progress_accesses or 10_000_000
    with Checks() as check:
        check.that(int(request.format) in list(Format), "format", "is not given")
        check.that(int(request.compression) in (0, *Compression), "compression", "is unknown")
        plain = int(request.compression) in (0, Compression.NONE)
        check.that(plain or int(request.format) != Format.COLUMNS, "compression", "does not go with columns")
        check.range("policies", len(request.policies), 1, 16)
        check.range("frames", len(request.frames), 1, 64)
        for frames in request.frames[:64]:
            check.range("frames", frames, 1, 1 << 32)
        check.range("page_size_bytes", page_size, 1, 1 << 30)
        check.that(page_size & (page_size - 1) == 0, "page_size_bytes", f"is {page_size}, no power of 2")
        check.range("warmup_accesses", request.warmup_accesses, 0, MAX_ACCESSES)
        check.range("explain_evictions", request.explain_evictions, 0, 10_000)
        check.range("progress_accesses", progress, 10_000, 10**9)
    return ReplayPlan(
        policies=tuple(_policy(one) for one in request.policies),
        frames=tuple(request.frames),
        page_shift=page_size.bit_length() - 1,
        warmup=request.warmup_accesses,
        tlb=_tlb(request.tlb) if request.HasField("tlb") else None,
        table_bits=request.table_bits,
        explain=request.explain_evictions,
        curve=_curve(request.curve) if request.HasField("curve") else None,
        partial=request.partial,
        progress=progress,
        format=Format(request.format),
        compression=Compression(request.compression or Compression.NONE),
    )


def _policy(request: pb.ReplayPolicy) -> PolicyPlan:
    """Returns a policy with the parameters that were chosen."""
    name = _known(request.policy)
    parameters: Sequence[group_events_pb2.PolicyParameter] = request.parameters
    with Checks() as check:
        check.range("policies.parameters", len(parameters), 0, 32)
        names = [one.name for one in parameters]
        check.that(names == sorted(dict.fromkeys(names)), "policies.parameters", "are not ordered by name, each once")
    values = {one.name: one.value for one in parameters}
    return PolicyPlan(name, checked(OWN[name], values, "policies.parameters"))


def _known(name: str) -> str:
    if name in OWN:
        return name
    raise NotFound(
        f"No policy {shown(name)} can be replayed.",
        reason="POLICY_UNKNOWN",
        next_step=f"Choose from {', '.join(OWN)}.",
    )


def _tlb(request: pb.ReplayTlb) -> TlbPlan:
    entries, ways, second_ways = request.entries or 64, request.ways or 4, request.second_ways or 12
    with Checks() as check:
        check.range("tlb.entries", entries, 1, 65_536)
        check.range("tlb.second_entries", request.second_entries, 0, 1 << 20)
        wide = check.that(ways >= 1 and entries % ways == 0, "tlb.ways", f"is {ways}, no divisor of {entries} entries")
        deep = second_ways >= 1 and request.second_entries % second_ways == 0
        text = f"is {second_ways}, no divisor of {request.second_entries} entries"
        check.that((deep and wide) or not wide, "tlb.second_ways", text)
    return TlbPlan(entries, ways, request.second_entries, second_ways)


def _curve(request: pb.ReplayCurve) -> CurvePlan:
    with Checks() as check:
        check.range("curve.policies", len(request.policies), 1, 16)
        check.range("curve.sample", request.sample, 0, 1_000_000)
        check.that(request.points == 0 or 2 <= request.points <= 1_000_000, "curve.points", "is not 0 or 2 to 1000000")
    policies = tuple(PolicyPlan(_known(name)) for name in request.policies)
    return CurvePlan(policies, request.sample or 1, request.points)


def columns(request: pb.TraceColumns) -> Columns:
    """Returns decoded accesses. TRACE_COLUMNS_UNEQUAL, or a kind that is none."""
    count, rest = divmod(len(request.addresses), 8)
    with Checks() as check:
        check.range("columns.addresses", len(request.addresses), 0, 8 * MAX_COLUMNS)
    if rest or len(request.kinds) not in (0, count) or len(request.sizes) not in (0, 4 * count):
        raise InvalidArgument(
            f"Columns of {len(request.addresses)} bytes of addresses, {len(request.kinds)} of kinds and "
            f"{len(request.sizes)} of sizes are not of the same length.",
            reason="TRACE_COLUMNS_UNEQUAL",
            next_step="Send 8 bytes of address, 1 of kind and 4 of size for each access, or leave a column out.",
        )
    kinds = np.frombuffer(bytearray(request.kinds), np.uint8) if request.kinds else NO_KINDS
    with Checks() as check:
        known = not kinds.size or (kinds.min() >= 1 and kinds.max() <= 3)
        check.that(bool(known), "columns.kinds", "has a kind that is not 1, 2 or 3")
    sizes = np.frombuffer(bytearray(request.sizes), "<u4") if request.sizes else NO_SIZES
    return Columns(np.frombuffer(bytearray(request.addresses), "<u8"), kinds, sizes)


def responses(outcome: Outcome) -> Iterator[pb.ReplayResponse]:
    """Yields an outcome as messages, none of them larger than the contract says."""
    if isinstance(outcome, Progress):
        progress = pb.ReplayProgress(
            accesses=outcome.accesses, trace_bytes=outcome.trace_bytes, distinct_pages=outcome.distinct_pages
        )
        yield pb.ReplayResponse(progress=progress)
    elif isinstance(outcome, Result):
        yield pb.ReplayResponse(result=_result(outcome))
    elif isinstance(outcome, Explanation):
        yield from _explanations(outcome)
    else:
        yield from _pieces(outcome)


def _result(result: Result) -> pb.ReplayResult:
    counts = result.counts
    return pb.ReplayResult(
        policy=result.policy,
        frames=result.frames,
        accesses=result.accesses,
        hits=result.accesses - counts.misses,
        misses=counts.misses,
        cold_misses=result.cold_misses,
        evictions=counts.evictions,
        write_backs=counts.write_backs,
        distinct_pages=result.distinct_pages,
        tlb_hits=counts.tlb_hits,
        tlb_second_hits=counts.tlb_second_hits,
        tlb_misses=counts.tlb_misses,
        truncated=result.truncated,
    )


def _explanations(explanation: Explanation) -> Iterator[pb.ReplayResponse]:
    evictions = [pb.ReplayEviction(**vars(one)) for one in explanation.evictions]
    for start in range(0, max(1, len(evictions)), EVICTIONS_A_MESSAGE):
        part = evictions[start : start + EVICTIONS_A_MESSAGE]
        message = pb.ReplayExplanation(policy=explanation.policy, frames=explanation.frames, evictions=part)
        yield pb.ReplayResponse(explanation=message)


def _pieces(curve: Curve) -> Iterator[pb.ReplayResponse]:
    size = len(curve.frames)
    for start in range(0, max(1, size), POINTS_A_MESSAGE):
        end = start + POINTS_A_MESSAGE
        message = pb.MissRatioCurve(
            policy=curve.policy,
            frames=curve.frames[start:end],
            misses=curve.misses[start:end],
            accesses=curve.accesses,
            last=end >= size,
        )
        yield pb.ReplayResponse(curve=message)
