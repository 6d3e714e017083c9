"""Between contract and domain: the only module that knows both."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.common.v1 import access_pb2, handle_pb2
from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_hardware.domain.contexts.arbiter import Run
from lamina_hardware.domain.contexts.context import ALL_EXCEPTIONS, Context, ContextState, Handle
from lamina_hardware.domain.contexts.counts import Counts
from lamina_hardware.domain.contexts.run_groups import DEFAULT_PERIOD_NS, DEFAULT_WEIGHT, RunGroup, Share
from lamina_hardware.domain.paging.walk import Access, Outcome, Step, Walk
from lamina_hardware.engines.model.engine import ContextWish, Ended
from lamina_hardware.names import Names
from lamina_kit.checks import Checks

_STATES = {
    ContextState.IDLE: pb.Context.STATE_IDLE,
    ContextState.READY: pb.Context.STATE_READY,
    ContextState.RUNNING: pb.Context.STATE_RUNNING,
    ContextState.HALTED: pb.Context.STATE_HALTED,
}
_ACCESSES: dict[int, Access] = {
    access_pb2.ACCESS_UNSPECIFIED: Access.READ,
    access_pb2.ACCESS_READ: Access.READ,
    access_pb2.ACCESS_WRITE: Access.WRITE,
    access_pb2.ACCESS_EXECUTE: Access.EXECUTE,
}
_OUTCOMES = {
    Outcome.TRANSLATED: pb.TranslateResponse.OUTCOME_TRANSLATED,
    Outcome.PAGE_FAULT: pb.TranslateResponse.OUTCOME_PAGE_FAULT,
    Outcome.EPT_VIOLATION: pb.TranslateResponse.OUTCOME_EPT_VIOLATION,
    Outcome.NOT_CANONICAL: pb.TranslateResponse.OUTCOME_NOT_CANONICAL,
    Outcome.EPT_MISCONFIGURATION: pb.TranslateResponse.OUTCOME_EPT_MISCONFIGURATION,
}
_MAX_LABEL = 256
_MAX_DOMAIN = 256


def handle(message: handle_pb2.Handle) -> Handle:
    """Returns a handle."""
    return Handle(message.id, message.generation)


def access(value: int) -> Access:
    """Returns an access; raises `InvalidArgument` for one that the contract does not have."""
    with Checks() as check:
        check.one_of("access", value, tuple(_ACCESSES))
    return _ACCESSES[value]


def counters(counts: Counts) -> pb.Counters:
    """Returns counters as a message; reasons that did not occur are left out."""
    return pb.Counters(
        instructions=counts.instructions,
        exits=sum(counts.exits),
        exits_by_reason=[pb.ExitCount(reason=reason, count=n) for reason, n in enumerate(counts.exits) if n],  # type: ignore[arg-type]
        tlb_fills=counts.event("tlb_fills"),
        walk_faults=counts.event("walk_faults"),
        shootdowns=counts.shootdowns,
        code_invalidations=counts.event("code_invalidations"),
        run_time_ns=counts.run_time_ns,
        wait_time_ns=counts.wait_time_ns,
    )


def context(found: Context, names: Names) -> pb.Context:
    """Returns a context as a message."""
    _, _, domain = found.domain.partition(":")
    return pb.Context(
        name=names.format_context(found.key),
        handle=handle_pb2.Handle(id=found.handle.id, generation=found.handle.generation),
        run_group=names.format_run_group(found.group),
        coherence_domain=domain,
        eptp=found.eptp,
        run_page=found.run_page,
        state=_STATES[found.state],
        counters=counters(found.counts),
        intercepts=pb.Intercepts(exceptions=found.exceptions, cpuid=found.cpuid, syscall=found.syscall),
        label=found.label,
    )


def context_wish(message: pb.Context, names: Names, ram_bytes: int, owner: str) -> ContextWish:
    """Returns what a caller wants of a context; raises `InvalidArgument` that names each wrong field."""
    wanted = message.intercepts
    with Checks() as check:
        check.max_bytes("context.label", message.label, _MAX_LABEL)
        check.max_bytes("context.coherence_domain", message.coherence_domain, _MAX_DOMAIN)
        check.range("context.intercepts.exceptions", wanted.exceptions, 0, ALL_EXCEPTIONS)
        check.aligned("context.eptp", message.eptp, 4096)
        check.that(message.eptp < ram_bytes, "context.eptp", "is outside RAM")
    default = not message.HasField("intercepts")
    return ContextWish(
        group=names.run_group(message.run_group, "context.run_group"),
        domain=message.coherence_domain,
        eptp=message.eptp,
        exceptions=ALL_EXCEPTIONS if default else wanted.exceptions,
        cpuid=wanted.cpuid,
        syscall=True if default else wanted.syscall,
        label=message.label,
        owner=owner,
    )


def run_group(group: RunGroup, names: Names) -> pb.RunGroup:
    """Returns a run group as a message."""
    return pb.RunGroup(
        name=names.format_run_group(group.name),
        parent=names.format_run_group(group.parent),
        weight=group.share.weight,
        quota_ns=group.quota_ns,
        period_ns=group.period_ns,
        cores=sorted(group.cores),
        used_ns=group.used_ns,
        throttled_ns=group.throttled_ns,
        context_count=group.contexts,
    )


def run_group_wish(request: pb.CreateRunGroupRequest, names: Names, cores: int, owner: str, now: int) -> RunGroup:
    """Returns what a caller wants of a run group; raises `InvalidArgument` that names each wrong field."""
    message = request.run_group
    weight = message.weight or DEFAULT_WEIGHT
    period = message.period_ns or DEFAULT_PERIOD_NS
    with Checks() as check:
        check.identifier("run_group_id", request.run_group_id)
        check.range("run_group.weight", weight, 1, 10_000)
        check.range("run_group.period_ns", period, 1_000_000, 1_000_000_000)
        check.range("run_group.quota_ns", message.quota_ns, 0, period * cores)
        for core in message.cores:
            check.range("run_group.cores", core, 0, cores - 1)
    return RunGroup(
        name=request.run_group_id,
        parent=names.run_group(message.parent, "run_group.parent"),
        share=Share(weight),
        quota_ns=message.quota_ns,
        period_ns=period,
        cores=frozenset(message.cores),
        owner=owner,
        window_start=now,
    )


def core(number: int, running: Run | None, lost: bool, counts: Counts, names: Names) -> pb.Core:
    """Returns a core as a message."""
    busy = running is not None
    state = pb.Core.STATE_LOST if lost else (pb.Core.STATE_RUNNING if busy else pb.Core.STATE_IDLE)
    return pb.Core(
        name=names.format_core(number),
        number=number,
        state=state,
        context=names.format_context(running.context.key) if running is not None else "",
        counters=counters(counts),
    )


def run_response(ended: Ended) -> pb.RunResponse:
    """Returns the response that ends a run."""
    found, response = ended.run.context.handle, pb.RunResponse()
    response.handle.id, response.handle.generation = found.id, found.generation
    fill_response(response, ended)
    return response


def fill_response(response: pb.RunResponse, ended: Ended) -> None:
    """Makes a response to a run of a context one to another run of the same."""
    run = ended.run
    response.sequence = run.sequence
    response.reason = ended.reason  # type: ignore[assignment]
    response.instructions = run.consumed
    response.run_time_ns = run.run_ns
    response.wait_time_ns = run.wait_ns
    response.core = run.core if run.core > 0 else 0


def refusal(request: pb.RunRequest, reason: str) -> pb.RunResponse:
    """Returns the response to a run that was not begun."""
    return pb.RunResponse(
        handle=request.handle, sequence=request.sequence, reason=pb.EXIT_REASON_REFUSED, detail=reason
    )


def walk_steps(steps: Sequence[Step]) -> list[access_pb2.WalkStep]:
    """Returns the entries that a walk visited as messages."""
    return [
        access_pb2.WalkStep(
            table=step.table,
            level=step.level,
            index=step.index,
            entry_address=step.entry_address,
            entry=step.entry,
            bits=step.bits,
            input_address=step.input_address,
        )
        for step in steps
    ]


def walk(found: Walk) -> pb.TranslateResponse:
    """Returns a walk as a message."""
    translated = found.outcome is Outcome.TRANSLATED
    second = found.outcome in (Outcome.EPT_VIOLATION, Outcome.EPT_MISCONFIGURATION)
    return pb.TranslateResponse(
        outcome=_OUTCOMES[found.outcome],
        guest_physical_address=found.gpa if translated or second else 0,
        physical_address=found.pa if translated else 0,
        steps=walk_steps(found.steps),
        error_code=found.error_code,
        page_size_bytes=found.page_size if translated else 0,
    )
