"""Between the contract and the domain: replacement policies and what they decided."""

from __future__ import annotations

import re

import numpy as np
from lamina.mmu.v1 import group_events_pb2
from lamina.mmu.v1 import policies_pb2 as pb

from lamina_kit.checks import Checks
from lamina_mmu.domain.groups.views import PolicyView
from lamina_mmu.domain.names import Names
from lamina_mmu.domain.policies.decisions import Candidate, Eviction
from lamina_mmu.domain.policies.plugged import News, Question
from lamina_mmu.domain.policy import Choice

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
MOST_TEXT = 1023
MOST_REASON = 127
MOST_VICTIMS = 4096


def policy(view: PolicyView, names: Names) -> pb.Policy:
    """Returns a policy as a message."""
    one = view.policy
    return pb.Policy(
        name=one.name,
        summary=one.summary,
        source=one.source,
        origin=view.origin,  # type: ignore[arg-type]
        parameters=[
            group_events_pb2.PolicyParameter(name=each.name, value=str(each.default))
            for each in sorted(one.parameters, key=lambda each: each.name)
        ],
        offline=one.offline,
        groups=[names.group(group) for group in view.groups],
    )


def candidate(found: Candidate, names: Names) -> pb.Candidate:
    """Returns a candidate as a message."""
    kind, number, address = found.place or ("", 0, 0)
    user = names.space(number) if kind == "space" else names.object(number) if kind == "object" else ""
    return pb.Candidate(
        frame=found.frame,
        user=user,
        address=address,
        age=found.age,
        dirty=found.dirty,
        standing=found.standing,
    )


def eviction(found: Eviction, names: Names) -> pb.Eviction:
    """Returns an eviction as a message."""
    return pb.Eviction(
        sequence=found.sequence,
        time_ns=found.time_ns,
        group=names.group(found.batch.group),
        policy=found.policy,
        victim=candidate(found.victim, names),
        reason=found.reason,
        others=[candidate(other, names) for other in found.others],
        swap_slot=found.slot if found.slot >= 0 else None,
        wanted_by=found.batch.wanted_by,
        cause=found.cause,
    )


def plugged(request: pb.PlugOpen) -> tuple[str, str, str]:
    """Returns name, summary and source of a policy that is plugged in."""
    wanted = request.policy
    with Checks() as check:
        check.that(bool(NAME.fullmatch(wanted.name)), "open.policy.name", "does not match [a-z][a-z0-9-]{0,30}")
        check.that(0 < len(wanted.summary) <= MOST_TEXT, "open.policy.summary", "is not 1 to 1023 characters")
        check.that(len(wanted.source) <= MOST_TEXT, "open.policy.source", "has more than 1023 characters")
    return wanted.name, wanted.summary, wanted.source


def victims(answer: pb.PlugVictims) -> list[Choice]:
    """Returns the victims of an answer."""
    with Checks() as check:
        check.that(len(answer.victims) <= MOST_VICTIMS, "victims.victims", f"are {len(answer.victims)}, more than 4096")
        for one in answer.victims:
            check.that(len(one.reason) <= MOST_REASON, "victims.reason", "has more than 127 characters")
    return [Choice(one.page, one.reason or "the program gave no reason") for one in answer.victims]


def plug_message(message: News | Question, group_name: str) -> pb.PlugResponse:
    """Returns what is said to a plugged policy as a message; the name of the group with its first news."""
    if isinstance(message, Question):
        question = pb.PlugQuestion(
            sequence=message.sequence,
            group_number=message.group,
            count=message.count,
            incoming=message.incoming,
        )
        return pb.PlugResponse(question=question)
    news = pb.PlugNews(
        group_number=message.group,
        group_name=group_name,
        limit_frames=message.limit,
        pages=np.array(message.pages, "<i8").tobytes(),
        kinds=bytes(message.kinds),
        time_ns=message.time_ns,
    )
    return pb.PlugResponse(news=news)
