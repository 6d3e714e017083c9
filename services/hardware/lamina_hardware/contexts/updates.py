"""Changes to contexts and run groups that exist, and what groups used."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_hardware.domain.contexts.context import Context, ContextState
from lamina_hardware.domain.contexts.run_groups import DEFAULT_PERIOD_NS, DEFAULT_WEIGHT, Change, RunGroup
from lamina_hardware.engines.model.engine import ModelEngine
from lamina_hardware.names import Names
from lamina_kit.checks import Checks
from lamina_kit.errors import FailedPrecondition
from lamina_kit.telemetry.pressure_message import pressure_message

CONTEXT_FIELDS = ("run_group", "coherence_domain", "eptp", "label")
GROUP_FIELDS = ("weight", "quota_ns", "period_ns", "cores")
_MAX_TEXT = 256
_MAX_CORES = 4096


def require_idle(context: Context) -> None:
    """Raises `FailedPrecondition` `CONTEXT_BUSY` for a context that runs, waits or halts."""
    if context.state is not ContextState.IDLE:
        handle = f"{context.handle.id}.{context.handle.generation}"
        raise FailedPrecondition(
            f"The context {handle} runs.",
            reason="CONTEXT_BUSY",
            next_step="Kick it, and wait for the response of its run.",
            handle=handle,
        )


def update_context(
    engine: ModelEngine, context: Context, message: pb.Context, paths: Sequence[str], names: Names, ram_bytes: int
) -> None:
    """Changes an idle context; all or nothing."""
    with Checks() as check:
        check.that(bool(paths), "update_mask", "is empty")
        for path in paths:
            check.one_of("update_mask", path, CONTEXT_FIELDS)
        check.max_bytes("context.label", message.label, _MAX_TEXT)
        check.max_bytes("context.coherence_domain", message.coherence_domain, _MAX_TEXT)
        if "eptp" in paths:
            check.aligned("context.eptp", message.eptp, 4096)
            check.that(message.eptp < ram_bytes, "context.eptp", "is outside RAM")
    group = names.run_group(message.run_group, "context.run_group") if "run_group" in paths else context.group
    engine.groups.get(group)
    require_idle(context)
    domain = context.domain
    if "coherence_domain" in paths:
        domain = engine.domain_key(context.owner, message.coherence_domain, context.key)
    engine.arbiter.leave(context)
    context.group, context.domain = group, domain
    engine.arbiter.join(context)
    if "eptp" in paths:
        context.eptp, context.work = message.eptp, None
    if "label" in paths:
        context.label = message.label


def group_change(message: pb.RunGroup, paths: Sequence[str], group: RunGroup, cores: int) -> Change:
    """Returns what a request changes of a group; raises `InvalidArgument` that names each wrong field."""
    wanted = tuple(paths) or GROUP_FIELDS
    weight = message.weight or DEFAULT_WEIGHT
    period = message.period_ns or DEFAULT_PERIOD_NS
    with Checks() as check:
        for path in wanted:
            check.one_of("update_mask", path, GROUP_FIELDS)
        if "weight" in wanted:
            check.range("run_group.weight", weight, 1, 10_000)
        if "period_ns" in wanted:
            check.range("run_group.period_ns", period, 1_000_000, 1_000_000_000)
        period = period if "period_ns" in wanted else group.period_ns
        quota = message.quota_ns if "quota_ns" in wanted else group.quota_ns
        check.range("run_group.quota_ns", quota, 0, period * cores)
        if "cores" in wanted:
            check.that(len(message.cores) <= _MAX_CORES, "run_group.cores", f"has more than {_MAX_CORES} entries")
            for core in message.cores:
                check.range("run_group.cores", core, 0, cores - 1)
    return Change(
        weight=weight if "weight" in wanted else None,
        quota_ns=message.quota_ns if "quota_ns" in wanted else None,
        period_ns=period if "period_ns" in wanted else None,
        cores=frozenset(message.cores) if "cores" in wanted else None,
    )


def usage(group: RunGroup, name: str, now: int) -> pb.RunGroupUsage:
    """Returns what a group used up to `now`, children included."""
    group.roll(now)
    throttled_now = now - group.throttled_since if group.throttled_since is not None else 0
    return pb.RunGroupUsage(
        name=name,
        time_ns=now,
        used_ns=group.used_ns,
        throttled_ns=group.throttled_ns + max(throttled_now, 0),
        periods=group.periods,
        throttled_periods=group.throttled_periods,
        pressure=pressure_message(group.pressure.read(now)),
        active_contexts=group.ready + group.running,
        instructions=group.instructions,
    )
