"""Advice, locks and writing back of the `linux` engine: madvise, mlock, msync."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from lamina_kit.effects import Step
from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.kernel.maps import Region, hole, parse_sizes, within
from lamina_mmu.domain.spaces.advice import TAKES_AWAY, Advice
from lamina_mmu.engines.linux import agents
from lamina_mmu.engines.linux.groups import GroupCalls
from lamina_mmu.engines.linux.refusals import refuse
from lamina_mmu.engines.linux.state import KernelSpace

MS_SYNC, MLOCK_ONFAULT = 4, 1
MADV = {
    Advice.NORMAL: 0,
    Advice.SEQUENTIAL: 2,
    Advice.RANDOM: 1,
    Advice.WILL_NEED: 3,
    Advice.DONT_NEED: 4,
    Advice.FREE: 8,
    Advice.COLD: 20,
    Advice.PAGE_OUT: 21,
    Advice.HUGE_PAGE: 14,
    Advice.NO_HUGE_PAGE: 15,
    Advice.COLLAPSE: 25,
    Advice.DONT_FORK: 10,
    Advice.DO_FORK: 11,
    Advice.WIPE_ON_FORK: 18,
    Advice.KEEP_ON_FORK: 19,
    Advice.POPULATE_READ: 22,
    Advice.POPULATE_WRITE: 23,
}
"""Numbers of madvise(2). Source: Linux include/uapi/asm-generic/mman-common.h."""
FOR_OTHERS = (Advice.COLD, Advice.PAGE_OUT, Advice.WILL_NEED, Advice.COLLAPSE)
"""What process_madvise(2) gives to processes that are not the caller's own."""
_GROWS = (Advice.POPULATE_READ, Advice.POPULATE_WRITE, Advice.WILL_NEED)


class AdviceCalls(GroupCalls):
    """Implements the part of `engines.ranges.RangeEngine` about advice and locks."""

    def advise_range(self, handle: Handle, start: int, end: int, given: Advice) -> Step[int]:
        """Takes advice; returns by how many pages RAM, or huge pages, changed."""
        state, space = self.state, self.state.spaces.get(handle)
        agents.keep_off_agent(state, space, start, end)
        before = self._advised(space, given, start, end)
        if space.agent is None:
            yield from self._advise_other(space, start, end, given)
        else:
            reply = yield from agents.call(state, space, agents.MADVISE, (start, end - start, MADV[given]))
            if reply.result < 0:
                raise self._not_advised(space, start, end, given, reply.result)
        after = self._advised(space, given, start, end)
        if given in _GROWS or given == Advice.COLLAPSE:
            return max(after - before, 0)
        return max(before - after, 0) if given in (Advice.DONT_NEED, Advice.PAGE_OUT) else 0

    def _advised(self, space: KernelSpace, given: Advice, start: int, end: int) -> int:
        """Returns the pages in RAM of a range's mappings, those that advice may change; 0 for other advice."""
        if given not in (*_GROWS, Advice.COLLAPSE, Advice.DONT_NEED, Advice.PAGE_OUT):
            return 0
        found = within(agents.regions(self.state, space, sizes=True), start, end)
        if given == Advice.COLLAPSE:
            return sum(region.pages("AnonHugePages") for region in found)
        held = sum(region.resident for region in found)
        return held + sum(region.swapped for region in found) if given == Advice.DONT_NEED else held

    def _advise_other(self, space: KernelSpace, start: int, end: int, given: Advice) -> Step[None]:
        if given not in FOR_OTHERS:
            raise refuse("mapping", f"give this advice to process {space.pid}", "COLD and PAGE_OUT may be.")
        result = yield from agents.advise(self.state, space, [(start, end - start)], MADV[given])
        if result < 0:
            raise self._not_advised(space, start, end, given, result)

    def _not_advised(self, space: KernelSpace, start: int, end: int, given: Advice, result: int) -> LaminaError:
        found = agents.regions(self.state, space, sizes=True)
        missing = hole(found, start, end)
        if missing is not None and -result in (errno.ENOMEM, errno.EFAULT, errno.EINVAL):
            return agents.not_mapped(missing)
        if -result == errno.EINVAL and given in TAKES_AWAY and _locked(found, start, end):
            return FailedPrecondition(
                f"A page of {start:#x}-{end:#x} is locked.", reason="RANGE_LOCKED", next_step="Unlock it first."
            )
        if -result == errno.EPERM:
            return agents.not_traceable(space.pid)
        if -result in (errno.ENOMEM, errno.EAGAIN, errno.EBUSY):
            return agents.no_memory(f"do that in {start:#x}-{end:#x}")
        return InvalidArgument(
            f"A mapping in {start:#x}-{end:#x} cannot have the advice {given.name}: {errno.errorcode.get(-result)}.",
            reason="ADVICE_NOT_POSSIBLE",
            next_step="Advice on huge pages, freeing and forks is for private anonymous memory.",
        )

    def split_huge_pages(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Refuses."""
        yield from ()
        self.state.spaces.get(handle)
        raise refuse("split", "split huge pages", "The kernel splits them when a part is unmapped or protected.")

    # ── locks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def lock_range(self, handle: Handle, start: int, end: int, on_fault: bool) -> Step[int]:
        """Locks a range in RAM; nothing when it cannot be locked as a whole."""
        space = agents.own(self.state, handle)
        before = agents.check_mapped(self.state, space, start, end)
        flags = MLOCK_ONFAULT if on_fault else 0
        reply = yield from agents.call(self.state, space, agents.MLOCK2, (start, end - start, flags))
        if reply.result < 0:
            raise self._not_locked(space, sum(one.end - one.start for one in before), reply.result)
        return self._locked_bytes(space)

    def _not_locked(self, space: KernelSpace, mapped: int, result: int) -> LaminaError:
        limit = space.settings.locked_max_bytes
        if -result == errno.EPERM or (-result == errno.ENOMEM and limit is not None):
            text = f"The space may lock {limit} bytes, of {mapped} that are mapped."
            return agents.exhausted("LOCK_LIMIT", text, "Unlock something, or raise locked_max_bytes.")
        return agents.no_memory("lock the range")

    def unlock_range(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Unlocks a range."""
        space = agents.own(self.state, handle)
        agents.check_mapped(self.state, space, start, end)
        yield from agents.call(self.state, space, agents.MUNLOCK, (start, end - start))
        return self._locked_bytes(space)

    def _locked_bytes(self, space: KernelSpace) -> int:
        text = self.state.kernel.processes.text(space.pid, "status")
        return parse_sizes(text).get("VmLck", 0) << 10 if isinstance(text, str) else 0

    # ── writing back ─────────────────────────────────────────────────────────────────────────────────────────────

    def sync_range(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Makes msync(2); memory files lie on no disk, so nothing is ever written."""
        space = agents.own(self.state, handle)
        agents.keep_off_agent(self.state, space, start, end)
        reply = yield from agents.call(self.state, space, agents.MSYNC, (start, end - start, MS_SYNC))
        if reply.result < 0:
            agents.check_mapped(self.state, space, start, end)
            raise agents.failed("write it back", reply.result)
        return 0


def _locked(found: Sequence[Region], start: int, end: int) -> bool:
    return any("lo" in region.flags for region in within(found, start, end))
