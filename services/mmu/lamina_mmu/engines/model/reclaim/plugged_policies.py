"""Policies that programs plug in: opening, questions, and the end of it."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.effects import Step
from lamina_kit.errors import Aborted, AlreadyExists, FailedPrecondition, LaminaError
from lamina_mmu.domain.effects import Answer, plug_answer_key, plug_key
from lamina_mmu.domain.policies.plugged import ANSWER_NS, MOST_BEHIND, Plug, PluggedPolicy
from lamina_mmu.domain.policy import Choice
from lamina_mmu.engines.model.machine.state import Machine

FALLBACK = "lru"
"""Policy of groups whose plugged one is gone."""
MOST_ASKED = 4096
"""Most pages that one question asks for."""


def open_plug(m: Machine, name: str, summary: str, source: str, owner: str) -> Plug:
    """Plugs a policy in; POLICY_EXISTS when there is one of that name."""
    if name in m.policies:
        raise AlreadyExists(
            f"There is a replacement policy {name}.", reason="POLICY_EXISTS", next_step="Plug it in under another name."
        )
    m.last_plug += 1
    key = plug_key(m.last_plug)
    plug = Plug(m.last_plug, m.frames.count - 1, m.ports.now_ns, lambda: m.ports.wake(key, None))
    attributes = {"name": name, "summary": summary, "source": source, "plug": plug}
    m.policies[name] = type("PluggedPolicy", (PluggedPolicy,), attributes)
    m.record(m.names.policy(name), "policy.plugged", owner=owner)
    return plug


def close_plug(m: Machine, plug: Plug, error: LaminaError | None) -> None:
    """Unplugs a policy: its groups use LRU from the order in which their pages came in. Idempotent."""
    if not plug.is_open:
        return
    plug.is_open, plug.closed = False, error
    name = next(name for name, policy in m.policies.items() if getattr(policy, "plug", None) is plug)
    reason = error.reason if error is not None else "CLOSED"
    del m.policies[name]
    users = [group for group in m.groups.ordered() if group.policy == name]
    for group in users:
        group.policy, group.policy_values = FALLBACK, {}
        m.record(
            m.names.group(group.name),
            "group.policy_fell_back",
            rule="a policy that is late, names a page that it was not told of, or goes away is unplugged",
            policy=name,
            reason=reason,
            now=FALLBACK,
        )
    if getattr(m.default_policy, "plug", None) is plug:
        m.choose_default(m.live_policy(FALLBACK))
    for group in users:
        for level in group.subtree():
            if isinstance(m.policy.policy(level.id), PluggedPolicy):
                m.policy.change(level.id)
    m.record(m.names.policy(name), "policy.unplugged", reason=reason)
    for sequence in list(plug.asked):
        del plug.asked[sequence]
        m.ports.wake(plug_answer_key(plug.id, sequence), None)
    m.ports.wake(plug_key(plug.id), None)


def take_answer(m: Machine, plug: Plug, sequence: int, victims: Sequence[Choice]) -> None:
    """Takes an answer; QUESTION_UNKNOWN for one that was not asked for, VICTIM_UNKNOWN for a page never told of."""
    policy = plug.asked.pop(sequence, None)
    if policy is None:
        raise FailedPrecondition(
            f"There is no open question {sequence}.",
            reason="QUESTION_UNKNOWN",
            next_step="Answer each question once, with its sequence.",
        )
    unknown = policy.answer(list(victims))
    if unknown:
        m.ports.wake(plug_answer_key(plug.id, sequence), None)
        raise FailedPrecondition(
            f"The policy {policy.name} was not told of page {unknown} as being in RAM.",
            reason="VICTIM_UNKNOWN",
            next_step="Name pages that were brought in and have not left.",
        )
    m.ports.wake(plug_answer_key(plug.id, sequence), True)


def ask(m: Machine, groups: list[int], pages: int, incoming: int) -> Step[None]:
    """Asks the programs of those groups that have one which pages should go. Their answers lie with their policies."""
    for group in groups:
        policy = m.policy.policy(group)
        if not isinstance(policy, PluggedPolicy) or not m.policy.population((group,)):
            continue
        m.policy.tell(group)
        plug = policy.plug
        if plug.behind > MOST_BEHIND:
            close_plug(m, plug, _silent(policy.name, f"it left {plug.behind} news unread"))
            continue
        sequence = plug.ask(policy, min(pages, MOST_ASKED), incoming)
        m.ports.wake(plug_key(plug.id), None)
        answered = yield Answer(plug_answer_key(plug.id, sequence), ANSWER_NS)
        if answered is None and plug.is_open and sequence in plug.asked:
            close_plug(m, plug, _silent(policy.name, f"no answer within {ANSWER_NS // 1_000_000} ms"))


def _silent(name: str, why: str) -> Aborted:
    return Aborted(
        f"The policy {name} was unplugged: {why}.",
        reason="POLICY_SILENT",
        next_step="Read the stream all the time, and answer each question at once; then plug in again.",
    )
