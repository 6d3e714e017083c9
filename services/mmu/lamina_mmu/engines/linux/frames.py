"""Frames of the machine, as /proc tells them."""

from __future__ import annotations

from lamina_kit.effects import Step
from lamina_kit.errors import OutOfRange
from lamina_kit.paging import PAGE_SHIFT
from lamina_mmu.domain.effects import Aside
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.kernel import pages
from lamina_mmu.domain.kernel.maps import parse_sizes
from lamina_mmu.domain.views import FragmentationView, FrameView, MemoryView
from lamina_mmu.engines.linux import agents
from lamina_mmu.engines.linux.groups import GroupCalls
from lamina_mmu.engines.linux.refusals import refuse

ORDERS = 19
HUGE_ORDER = 9
LOOK = 1 << 12
"""Frames that a list looks at in one piece."""
MOST_LOOKED = 1 << 20
"""Frames that one call looks at (4 GiB); a list of rare ones goes on with the next page."""
MOST_SEARCHED = 1 << 20
"""Pages of one region that are searched for a frame (4 GiB)."""


class FrameCalls(GroupCalls):
    """Implements the parts of the engine's interface about frames."""

    def memory(self) -> MemoryView:
        """Returns the state of the machine's memory; the kernel's own is `ALLOCATED`."""
        kernel = self.state.kernel.memory
        sizes, counted = parse_sizes(kernel.text("meminfo")), parse_sizes(kernel.text("vmstat"))
        total, free = sizes.get("MemTotal", 0) // 4, sizes.get("MemFree", 0) // 4
        uses = {
            Use.FREE: free,
            Use.ANONYMOUS: sizes.get("AnonPages", 0) // 4,
            Use.OBJECT: (sizes.get("Cached", 0) + sizes.get("Buffers", 0)) // 4,
            Use.TABLE: (sizes.get("PageTables", 0) + sizes.get("SecPageTables", 0)) // 4,
            Use.OFFLINE: sizes.get("HardwareCorrupted", 0) // 4,
        }
        uses[Use.ALLOCATED] = max(total - sum(uses.values()), 0)
        return MemoryView(
            total,
            free,
            tuple((use, uses[use]) for use in Use if uses.get(use)),
            sizes.get("SwapTotal", 0) // 4,
            sizes.get("SwapFree", 0) // 4,
            counted.get("pswpout", 0),
            counted.get("pswpin", 0),
            counted.get("pgsteal_file", 0),
            "linux",
        )

    def frame(self, frame: int) -> FrameView:
        """Returns what a frame is used for, and where spaces of this service map it."""
        flags = self._words("kpageflags", frame, 1)
        if not flags or flags[0] & pages.NOPAGE:
            raise OutOfRange(
                f"The machine has no frame {frame}.",
                reason="FRAME_OUTSIDE_RAM",
                next_step="Frames of the machine are those of its RAM; see /proc/iomem.",
            )
        mapped = self._words("kpagecount", frame, 1)
        places, owner = self._places(frame)
        return self._frame_view(frame, flags[0], mapped[0] if mapped else 0, places, owner)

    def frames(self, use: Use | None, group: str | None, after: int, count: int) -> list[FrameView]:
        """Returns frames by number, without their mappings; those of a group are nobody's to list."""
        if group is not None:
            raise refuse("frame-group", "list the frames of one group")
        found: list[FrameView] = []
        first, looked = after + 1, 0
        while len(found) < count and looked < MOST_LOOKED:
            flags = self._words("kpageflags", first, LOOK)
            if not flags:
                break
            chosen = [
                (first + index, word)
                for index, word in enumerate(flags)
                if not word & pages.NOPAGE and _is_of(pages.use_of(word), use)
            ][: count - len(found)]
            if chosen:
                mapped = self._words("kpagecount", first, len(flags))
                found += [self._frame_view(number, word, mapped[number - first], ()) for number, word in chosen]
            first, looked = first + len(flags), looked + len(flags)
        return found

    def _frame_view(
        self, frame: int, flags: int, mapped: int, places: tuple[tuple[int, int], ...], owner: str = ""
    ) -> FrameView:
        use = pages.use_of(flags)
        dirty = bool(flags & pages.DIRTY) or use == Use.ANONYMOUS
        count = mapped if mapped < 1 << 31 else 0  # kernel pages of some types count otherwise
        named = owner if use == Use.OBJECT else ""
        return FrameView(frame, use, places, max(count, len(places)), "", 0, named, dirty, -1)

    def _places(self, frame: int) -> tuple[tuple[tuple[int, int], ...], str]:
        """Returns where spaces map a frame, the newest space first, and the name of the object that it is of.

        The kernel has no reverse map for others to read: the page maps of our spaces are searched.
        """
        found: list[tuple[int, int]] = []
        owner = ""
        for space in reversed(list(self.state.spaces)):
            for region in agents.regions(self.state, space, sizes=True):
                size = region.end - region.start >> PAGE_SHIFT
                if not region.resident or size > MOST_SEARCHED:
                    continue
                first = region.start >> PAGE_SHIFT
                raw = agents.words(self.state, space, first, size)
                here = [(space.number, first + at) for at, word in enumerate(raw) if pages.frame_of(word) == frame]
                if here and region.inode in self.state.inodes:
                    owner = self.state.names.object(self.state.inodes[region.inode])
                found += here
        return (tuple(found[:1000]), owner) if frame else ((), "")

    def _words(self, name: str, first: int, count: int) -> list[int]:
        found = self.state.kernel.memory.words(name, first, count)
        if isinstance(found, int):
            raise refuse("frames", f"read /proc/{name}", "Run the service as root.")
        return list(found)

    # ── fragmentation ────────────────────────────────────────────────────────────────────────────────────────────

    def fragmentation(self) -> FragmentationView:
        """Returns how free memory is cut up, over all zones."""
        kernel = self.state.kernel.memory
        sizes, counted = parse_sizes(kernel.text("meminfo")), parse_sizes(kernel.text("vmstat"))
        blocks = self._free_blocks()
        fixed = ("SUnreclaim", "KernelStack", "PageTables", "SecPageTables", "Percpu")
        unmovable = sum(sizes.get(name, 0) for name in fixed) // 4
        return FragmentationView(
            free_blocks=tuple(blocks),
            free=sum(number << order for order, number in enumerate(blocks)),
            movable_huge_blocks=_movable(kernel.text("pagetypeinfo")),
            huge_blocks=sizes.get("MemTotal", 0) // 4 >> HUGE_ORDER,
            unmovable=unmovable,
            zeroed=0,
            offline=sizes.get("HardwareCorrupted", 0) // 4,
            moved=counted.get("pgmigrate_success", 0),
        )

    def compact_frames(self, huge_blocks: int) -> Step[tuple[int, int]]:
        """Has the kernel compact all zones unless enough huge blocks are free already."""
        before = self.fragmentation()
        if _huge(before.free_blocks) >= huge_blocks:
            return 0, _huge(before.free_blocks)
        if (yield Aside(self.state.kernel.memory.compact)) < 0:
            raise refuse("frames", "compact the machine's memory", "Run the service as root.")
        after = self.fragmentation()
        return after.moved - before.moved, _huge(after.free_blocks)

    def _free_blocks(self) -> list[int]:
        """Returns free blocks by order, summed over zones. Source: proc(5), buddyinfo."""
        blocks = [0] * ORDERS
        for line in self.state.kernel.memory.text("buddyinfo").splitlines():
            _, _, zone = line.partition("zone")
            for order, number in enumerate(zone.split()[1:]):
                blocks[order] += int(number)
        return blocks


def _is_of(found: Use, wanted: Use | None) -> bool:
    return found != Use.FREE if wanted is None else found == wanted


def _huge(blocks: tuple[int, ...]) -> int:
    """Returns the aligned 2 MiB blocks in free blocks."""
    return sum(number << (order - HUGE_ORDER) for order, number in enumerate(blocks) if order >= HUGE_ORDER)


def _movable(text: str) -> int:
    """Returns the blocks that hold only what can be moved, over all zones. Source: /proc/pagetypeinfo, last table."""
    _, _, table = text.partition("Number of blocks type")
    lines = table.splitlines()
    names = lines[0].split() if lines else []
    wanted = [index for index, name in enumerate(names) if name in ("Movable", "Reclaimable", "CMA")]
    total = 0
    for line in lines[1:]:
        numbers = line.partition("zone")[2].split()[1:]
        total += sum(int(numbers[index]) for index in wanted if index < len(numbers))
    return total
