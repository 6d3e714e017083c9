"""Settings of spaces that are limits and switches of their processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lamina_kit.effects import Step
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.kernel.port import AGENT_END, AGENT_START
from lamina_mmu.domain.spaces.settings import HugePages, LockFuture, SpaceSettings
from lamina_mmu.domain.views import SettingsChange, SettingsView
from lamina_mmu.engines.interface import Key
from lamina_mmu.engines.linux import agents
from lamina_mmu.engines.linux.groups import GroupCalls
from lamina_mmu.engines.linux.refusals import refuse
from lamina_mmu.engines.linux.state import KernelSpace, State

RLIMIT_AS, RLIMIT_MEMLOCK = 9, 8
PR_SET_THP_DISABLE = 41
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
AGENT_BYTES = AGENT_END - AGENT_START
_LIMITS = {"Max locked memory": "locked_max_bytes", "Max address space": "mapped_max_bytes"}


def settings_of(state: State, space: KernelSpace) -> SpaceSettings:
    """Returns the settings of a space with the limits that the kernel has for its process."""
    text = state.kernel.processes.text(space.pid, "limits")
    found: dict[str, Any] = {}
    for line in text.splitlines() if isinstance(text, str) else ():
        for name, limit in _LIMITS.items():
            if line.startswith(name):
                soft = line.removeprefix(name).split()[0]
                found[limit] = int(soft) if soft.isdecimal() else None
    own = AGENT_BYTES if space.agent is not None else 0
    if found.get("mapped_max_bytes") is not None:
        found["mapped_max_bytes"] -= own
    adjust = state.kernel.processes.text(space.pid, "oom_score_adj")
    if isinstance(adjust, str):
        found["oom_score_adjust"] = int(adjust)
    return replace(space.settings, **found)


class SettingCalls(GroupCalls):
    """Implements the part of `engines.ranges.RangeEngine` about settings."""

    def space_settings(self, key: Key) -> SettingsView:
        """Returns the settings of a space."""
        space = self.state.space(key)
        return SettingsView(space.group, space.label, settings_of(self.state, space))

    def update_space_settings(self, handle: Handle, change: SettingsChange) -> Step[SettingsView]:
        """Changes settings; what belongs to the whole kernel is refused before anything is changed."""
        state, space = self.state, self.state.spaces.get(handle)
        fields, now = dict(change.fields), settings_of(self.state, space)
        for name, capability in (("fault_around_bytes", "fault-around"), ("stack_guard_pages", "stack-guard")):
            if fields.pop(name, getattr(now, name)) != getattr(now, name):
                raise refuse(capability, f"set {name} of one space: it is the whole kernel's")
        if space.agent is None and (set(fields) - {"oom_score_adjust"}):
            agents.own(state, handle)
        group = None if change.group is None else self.group_of(change.group)
        for name, value in fields.items():
            yield from self._set(space, name, value)
        if group is not None:
            self.enter_group(space.pid, group)
            space.group = group
        space.label = space.label if change.label is None else change.label
        space.settings = replace(space.settings, **fields)
        state.ports.record(state.names.space(space.number), "space.changed", settings=", ".join(change.named))
        return self.space_settings(handle)

    def _set(self, space: KernelSpace, name: str, value: Any) -> Step[None]:
        processes = self.state.kernel.processes
        if name == "locked_max_bytes":
            self._check(processes.limit(space.pid, RLIMIT_MEMLOCK, value), name)
        elif name == "mapped_max_bytes":
            limit = None if value is None else value + AGENT_BYTES
            self._check(processes.limit(space.pid, RLIMIT_AS, limit), name)
        elif name == "oom_score_adjust":
            self._check(processes.put(space.pid, "oom_score_adj", str(value)), name)
        elif name == "huge_pages":
            yield from self._do(space, agents.PRCTL, (PR_SET_THP_DISABLE, int(value == HugePages.NEVER)), name)
        elif name == "lock_future":
            yield from self._lock_future(space, value)

    def _lock_future(self, space: KernelSpace, value: LockFuture) -> Step[None]:
        """Locks what is mapped from now on; the kernel can only end that for all, so what is locked is locked anew."""
        if value != LockFuture.NO:
            flags = MCL_FUTURE | (MCL_ONFAULT if value == LockFuture.ON_FAULT else 0)
            yield from self._do(space, agents.MLOCKALL, (flags,), "lock_future")
            return
        locked = [one for one in agents.regions(self.state, space, sizes=True) if "lo" in one.flags]
        yield from self._do(space, agents.MUNLOCKALL, (), "lock_future")
        for region in locked:
            yield from self._do(space, agents.MLOCK2, (region.start, region.end - region.start, 0), "lock_future")

    def _do(self, space: KernelSpace, operation: int, arguments: tuple[int, ...], name: str) -> Step[None]:
        reply = yield from agents.call(self.state, space, operation, arguments)
        self._check(reply.result, name)

    def _check(self, result: int, name: str) -> None:
        if result < 0:
            raise agents.failed(f"set {name}", result)
