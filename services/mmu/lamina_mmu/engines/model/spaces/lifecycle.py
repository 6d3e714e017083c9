"""Making and deleting spaces."""

from __future__ import annotations

from lamina_kit.effects import Step, WaitFor
from lamina_kit.paging import USER_END
from lamina_mmu.domain.effects import Shootdown
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.space import Kind, Space
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.sparse import SparseTable
from lamina_mmu.engines.model.machine.accounting import note_space_gone
from lamina_mmu.engines.model.machine.state import Machine, Short
from lamina_mmu.engines.model.ranges.mapping import clear, transit_within, unlock_pages
from lamina_mmu.engines.model.reclaim.victims import make_room, no_free_frame
from lamina_mmu.engines.model.withdrawal.holders import end_hold


def create_space(m: Machine, kind: Kind, group: Group, label: str, session: Session) -> Step[Space]:
    """Makes an empty space; a process gets a root table in RAM."""
    group.members += 1
    space: Space | None = None
    try:
        table: FourLevelTable | SparseTable = SparseTable()
        if kind == Kind.PROCESS:
            (root,) = yield from take_tables(m, group, 1, f"a new space {label}")
            table = FourLevelTable(m.ram, root)
        space = m.spaces.add(Space(kind, group.id, label, table, session))
        if isinstance(table, FourLevelTable):
            m.frames.owner[table.root] = space.id
    finally:
        if space is None:
            group.members -= 1
    m.record(m.names.space(space.number), "space.created", owner=session.owner, label=label, group=group.name)
    return space


def take_tables(m: Machine, group: Group, count: int, cause: str) -> Step[list[int]]:
    """Takes `count` zeroed frames for tables, all or none, making room as needed; NO_FREE_FRAME when there is none."""
    taken = yield from take_frames(m, group, count, cause, Use.TABLE)
    for frame in taken:
        m.ram.zero(frame)
    return taken


def take_frames(m: Machine, group: Group, count: int, cause: str, use: Use) -> Step[list[int]]:
    """Takes `count` frames, each with one reference, all or none; NO_FREE_FRAME when there is none."""
    while True:
        taken: list[int] = []
        try:
            for _ in range(count):
                taken.append(m.take(use, group.id))
                m.keep(taken[-1])
            return taken
        except Short as short:
            for frame in taken:
                m.drop(frame)
            if not (yield from make_room(m, short.group, cause)):
                short.group.oom_events += 1
                raise no_free_frame(short.group) from None


def delete_space(m: Machine, space: Space) -> Step[None]:
    """Frees a space: its holder's pages are revoked, its own shot down, then frames, tables and slots go back.

    From the first moment its handle is stale; operations that are at work on its pages are waited for.
    """
    space.closing = True
    settled = False
    try:
        while (key := transit_within(space, 0, USER_END)) is not None:
            yield WaitFor(key)
        settled = True
    finally:
        space.closing = settled
    tables: list[int] = []
    unlock_pages(m, space, 0, USER_END)
    try:
        yield from clear(m, space, space.vmas.remove(0, USER_END))
        hold = m.holds.get(space.holder)
        if hold is not None:
            yield from end_hold(m, hold)
        if isinstance(space.table, FourLevelTable):
            yield Shootdown(space.table.root_address)
            tables = space.table.table_frames()
    finally:
        _free(m, space, tables)


def _free(m: Machine, space: Space, tables: list[int]) -> None:
    """Gives back the frames of the tables, unless a core might still walk them, and the slot."""
    space.table.close()
    for frame in tables:
        m.drop(frame)
    group = m.groups.get(space.group)
    group.members -= 1
    m.spaces.remove(space)
    note_space_gone(m, group)
    m.feed.end(space.number)
    m.record(m.names.space(space.number), "space.deleted")
