"""What belongs to a session goes with it; what a request id made once is not made twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from lamina_kit.effects import Step, WaitFor
from lamina_mmu.domain.effects import request_key
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.session import Session
from lamina_mmu.engines.model.groups.limits import delete_group
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.objects.objects import delete_object
from lamina_mmu.engines.model.ranges.pinning import end_pin
from lamina_mmu.engines.model.spaces.lifecycle import delete_space

T = TypeVar("T")


def once(m: Machine, request: str, meaning: Hashable, make: Callable[[], Step[T]]) -> Step[T]:
    """Returns what `make` makes, or made for the same request id before; a second call at the same time waits."""
    if not request:
        return (yield from make())
    while m.requests.working(request, meaning):
        yield WaitFor(request_key(request))
    made: T | None = m.requests.find(request, meaning)
    if made is not None:
        return made
    m.requests.begin(request, meaning)
    try:
        made = yield from make()
        return made
    finally:
        m.requests.end(request, made)
        m.ports.wake(request_key(request), None)


def owned(m: Machine, owner: str) -> int:
    """Returns how many spaces, objects, pins, groups and allocations of frames belong to an owner."""
    sessions = [thing.session for thing in (*m.spaces, *m.objects, *m.pins, *m.groups.ordered())]
    sessions += [one.session for one in m.allocations.values()]
    return len([session for session in sessions if session.owner == owner])


def expire(m: Machine, owner: str, epoch: int) -> Step[None]:
    """Frees what sessions of `owner` up to `epoch` made: spaces, objects, pins, frames, and groups empty by then."""
    for space in m.spaces:
        if _belongs(space.session, owner, epoch) and not space.closing:
            yield from delete_space(m, space)
    for entity in m.objects:
        if _belongs(entity.session, owner, epoch):
            delete_object(m, entity)
    for pin in m.pins:
        if _belongs(pin.session, owner, epoch):
            end_pin(m, pin)
    allocations = _allocations(m, owner, epoch)
    for frame in m.frames.used(Use.ALLOCATED).tolist():
        if m.frames.owner[frame] in allocations:
            m.drop_allocated(frame)
    for group in reversed(m.groups.ordered()):
        if _belongs(group.session, owner, epoch) and group.is_empty:
            delete_group(m, group)
    m.record(owner, "session.expired", epoch=epoch)


def _belongs(session: Session, owner: str, epoch: int) -> bool:
    return session.owner == owner and session.epoch <= epoch


def _allocations(m: Machine, owner: str, epoch: int) -> list[int]:
    found = m.allocations.items()
    return [number for number, one in found if _belongs(one.session, owner, epoch)]
