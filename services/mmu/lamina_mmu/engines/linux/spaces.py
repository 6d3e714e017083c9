"""Spaces of the `linux` engine: made, forked, attached to, ended; what they use; their settings."""

from __future__ import annotations

import errno

from lamina_kit.checks import Checks
from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.kernel.maps import parse_sizes
from lamina_mmu.domain.kernel.port import TOUCH_READ, Agent, exit_key
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.views import SpaceStatistics, SpaceView
from lamina_mmu.engines.interface import Key
from lamina_mmu.engines.linux import agents
from lamina_mmu.engines.linux.groups import GroupCalls
from lamina_mmu.engines.linux.refusals import refuse
from lamina_mmu.engines.linux.settings import settings_of
from lamina_mmu.engines.linux.state import KernelSpace

CLONE_PARENT, SIGCHLD = 0x8000, 17
MOST_PID = 1 << 22
"""Above every process id. Source: PID_MAX_LIMIT."""


class SpaceCalls(GroupCalls):
    """Implements the part of `engines.interface.MmuEngine` about whole spaces."""

    def create_space(self, kind: Kind, group: str, label: str, session: Session, request: str) -> Step[SpaceView]:
        """Starts an agent."""
        if kind != Kind.PROCESS:
            raise refuse("hold", "have spaces of kind GUEST_RAM, whose frames others hold")
        name = self.group_of(group)

        def make() -> Step[Handle]:
            agent = self.state.kernel.processes.start()
            space = self._add(KernelSpace(agent.pid, agent, name, label, session))
            try:
                self.enter_group(agent.pid, name)
                yield from self._settle(space)
                space.settings = settings_of(self.state, space)
            except BaseException:
                agents.ended(self.state, space, "it could not be made ready")
                raise
            self._record(space, "space.created")
            return space.handle

        handle = yield from self.state.once(request, ("space", kind, group, label), make)
        return self.space(handle)

    def fork_space(self, handle: Handle, label: str, group: str, session: Session, request: str) -> Step[SpaceView]:
        """Has an agent fork; the child is a process of this service, not of the agent."""
        name = self.group_of(group) if group else ""

        def make() -> Step[Handle]:
            parent = agents.own(self.state, handle)
            before = agents.faults(self.state, parent).minor
            agent = yield from self._fork(parent)
            made = KernelSpace(agent.pid, agent, name or parent.group, label, session)
            made.labels, made.settings, made.heap_start = parent.labels.copy(), parent.settings, parent.heap_start
            child = self._add(made)
            try:
                yield from self._settle(parent, before)
                yield from self._settle(child)
                if name:
                    self.enter_group(child.pid, name)
            except BaseException:
                agents.ended(self.state, child, "it could not be made ready")
                raise
            self._record(child, "space.forked", parent=self.state.names.space(parent.number))
            return child.handle

        child = yield from self.state.once(request, ("fork", handle, group, label), make)
        return self.space(child)

    def _fork(self, parent: KernelSpace) -> Step[Agent]:
        processes, contents = self.state.kernel.processes, self.state.kernel.contents
        mine, its = processes.pair()
        try:
            reply = yield from agents.call(self.state, parent, agents.CLONE, (CLONE_PARENT | SIGCHLD,), its)
        finally:
            contents.close(its)
        if reply.result <= 0:
            raise agents.no_memory(f"fork the space s-{parent.number}")
        assert parent.agent is not None, "it has forked just now"
        return processes.adopt(reply.result, mine, parent.agent)

    def attach_process(self, pid: int, group: str, label: str, session: Session, request: str) -> Step[SpaceView]:
        """Makes a running process a space."""
        name = self.group_of(group)
        with Checks() as check:
            check.range("pid", pid, 1, MOST_PID - 1)

        def make() -> Step[Handle]:
            yield from ()
            space = KernelSpace(pid, None, name, label, session)
            self._check_new(pid)
            error = self.state.kernel.processes.watch(
                pid, lambda: agents.ended(self.state, space, "its process ended")
            )
            if error:
                raise (
                    _unknown(pid)
                    if -error in (errno.ESRCH, errno.EINVAL, errno.ENOENT)
                    else agents.failed("watch it", error)
                )
            self.state.spaces.add(space)
            try:
                self._check_attachable(pid)
                if not agents.regions(self.state, space):
                    raise agents.not_traceable(pid)
                agents.words(self.state, space, 0x10, 1)
                if group:
                    self.enter_group(pid, name)
            except BaseException:
                agents.ended(self.state, space, "it could not be attached to")
                raise
            self._record(space, "space.attached")
            return space.handle

        handle = yield from self.state.once(request, ("attach", pid, group, label), make)
        return self.space(handle)

    def _check_new(self, pid: int) -> None:
        """Refuses what is a space already."""
        for space in self.state.spaces:
            if space.pid == pid:
                raise AlreadyExists(
                    f"Process {pid} is the space s-{space.number}.",
                    reason="PROCESS_ATTACHED",
                    next_step="Use that space, or delete it first.",
                )

    def _check_attachable(self, pid: int) -> None:
        """Refuses what is no process; it is watched already, so what is looked at is the one that is attached to."""
        text = self.state.kernel.processes.text(pid, "status")
        if isinstance(text, int):
            raise agents.not_traceable(pid) if -text in (errno.EPERM, errno.EACCES) else _unknown(pid)
        if parse_sizes(text).get("Tgid") != pid or "\nState:\tZ" in text:
            raise _unknown(pid)

    def delete_space(self, handle: Handle) -> Step[None]:
        """Ends an agent; a process that was attached to is left alone."""
        space = self.state.spaces.get(handle)
        agents.ended(self.state, space, "it was deleted")
        yield from self._wait_for_exit(space)

    def _wait_for_exit(self, space: KernelSpace) -> Step[None]:
        """Waits until the memory of an ended agent is free."""
        while self.state.kernel.processes.is_ending(space.pid):
            yield WaitFor(exit_key(space.pid))

    def space(self, key: Key) -> SpaceView:
        """Returns one space."""
        return self._space_view(self.state.space(key))

    def spaces(self, after: int, count: int) -> list[SpaceView]:
        """Returns spaces by number; those whose process ends meanwhile are left out."""
        found = []
        for space in self.state.spaces.after(after, count):
            try:
                found.append(self._space_view(space))
            except FailedPrecondition:
                continue
        return found

    def space_statistics(self, key: Key) -> SpaceStatistics:
        """Returns what a space uses, summed over its regions."""
        state, space = self.state, self.state.space(key)
        found = agents.regions(state, space, sizes=True)
        sizes, faults = self._status(space), agents.faults(state, space)

        def pages(*names: str) -> int:
            return sum(region.sizes.get(name, 0) for region in found for name in names) // 4

        resident, anonymous = pages("Rss"), pages("Anonymous")
        return SpaceStatistics(
            mapped=sum(region.end - region.start for region in found) >> 12,
            anonymous=anonymous,
            objects=resident - anonymous,
            private=pages("Private_Clean", "Private_Dirty"),
            shared=pages("Shared_Clean", "Shared_Dirty"),
            proportional_bytes=sum(region.sizes.get("Pss", 0) for region in found) << 10,
            swapped=pages("Swap"),
            swap_cached=0,
            locked=sizes.get("VmLck", 0) // 4,
            pinned=sizes.get("VmPin", 0) // 4,
            huge=pages("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"),
            table_frames=sizes.get("VmPTE", 0) // 4,
            minor_faults=faults.minor,
            major_faults=faults.major,
            around=0,
            read_ahead=0,
            peak_resident=max(sizes.get("VmHWM", 0) // 4, resident),
            time_ns=state.ports.now_ns(),
        )

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def owned(self, owner: str) -> int:
        """Returns how many spaces, objects and groups belong to an owner."""
        things = (*self.state.spaces, *self.state.objects)
        return len([thing for thing in things if thing.session.owner == owner]) + self.owned_groups(owner)

    def expire(self, owner: str, epoch: int) -> Step[None]:
        """Ends the spaces, and deletes the objects and groups, that sessions of an owner made."""
        mine = [one for one in self.state.spaces if one.session.owner == owner and one.session.epoch <= epoch]
        for space in mine:
            agents.ended(self.state, space, "its session expired")
        for space in mine:
            yield from self._wait_for_exit(space)
        for entity in self.state.objects:
            if entity.session.owner == owner and entity.session.epoch <= epoch:
                self.state.drop_object(entity)
        self.expire_groups(owner, epoch)
        self.state.ports.record(owner, "session.expired", epoch=epoch)

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add(self, space: KernelSpace) -> KernelSpace:
        self.state.spaces.add(space)
        self.state.kernel.processes.watch(space.pid, lambda: agents.ended(self.state, space, "its process died"))
        return space

    def _settle(self, space: KernelSpace, before: int = 0) -> Step[None]:
        """Has an agent fault in what it needs for itself. Faults beyond the `before` counted ones are its own."""
        reply = yield from agents.call(self.state, space, TOUCH_READ, (0,))
        if not reply.signal:
            raise agents.failed("keep page 0 out of a space", -errno.EINVAL)
        space.own_faults += agents.faults(self.state, space).minor - before

    def _space_view(self, space: KernelSpace) -> SpaceView:
        found = agents.regions(self.state, space, sizes=True)
        faults = agents.faults(self.state, space)
        return SpaceView(
            space.number,
            space.handle,
            Kind.PROCESS,
            space.group,
            0,
            space.label,
            sum(region.resident for region in found),
            sum(region.swapped for region in found),
            self._status(space).get("VmPTE", 0) // 4,
            faults.minor,
            faults.major,
            space.cow_faults,
            space.refused_faults,
        )

    def _status(self, space: KernelSpace) -> dict[str, int]:
        text = self.state.kernel.processes.text(space.pid, "status")
        return dict(parse_sizes(text)) if isinstance(text, str) else {}

    def _record(self, space: KernelSpace, event: str, parent: str = "") -> None:
        name = self.state.names.space(space.number)
        self.state.ports.record(name, event, pid=space.pid, label=space.label, parent=parent)


def _unknown(pid: int) -> NotFound:
    return NotFound(
        f"There is no process {pid} here.",
        reason="PROCESS_UNKNOWN",
        next_step="Name a process of this service's PID namespace that runs.",
    )
