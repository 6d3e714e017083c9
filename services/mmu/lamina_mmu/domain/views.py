"""What an engine shows of its objects: plain values, detached from its state. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.pin import Run
from lamina_mmu.domain.spaces.settings import SpaceSettings
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.domain.swap.areas import State
from lamina_mmu.domain.tables.four_level import Visit


@dataclass(frozen=True, slots=True)
class SpaceView:
    """A space. `group` is the last part of its group's name; counters as the contract's `Space` states them."""

    number: int
    handle: Handle
    kind: Kind
    group: str
    root_address: int
    label: str
    resident: int
    swapped: int
    table_frames: int
    minor_faults: int
    major_faults: int
    cow_faults: int
    refused_faults: int


@dataclass(frozen=True, slots=True)
class SpaceStatistics:
    """What a space uses, in pages of 4096 bytes unless named otherwise; as the contract's message states it."""

    mapped: int
    anonymous: int
    objects: int
    private: int
    shared: int
    proportional_bytes: int
    swapped: int
    swap_cached: int
    locked: int
    pinned: int
    huge: int
    table_frames: int
    minor_faults: int
    major_faults: int
    around: int
    read_ahead: int
    peak_resident: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class SettingsView:
    """Settings of a space, with the last name part of the group that is charged."""

    group: str
    label: str
    settings: SpaceSettings


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """What to change of a space's settings: None, or no such field, leaves a value. `named`: all paths, for the log."""

    named: tuple[str, ...]
    group: str | None = None
    label: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PinView:
    """A pinned range."""

    handle: Handle
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class ObjectView:
    """A memory object."""

    number: int
    handle: Handle
    size: int
    group: str
    label: str
    resident: int
    swapped: int


@dataclass(frozen=True, slots=True)
class GroupView:
    """A memory group. Limits in bytes (None: no limit), the rest in pages; `number` orders groups by creation."""

    number: int
    name: str
    parent: str
    max_bytes: int | None
    swap_max_bytes: int | None
    usage: int
    swap_usage: int
    peak: int
    max_events: int
    oom_events: int
    reclaimed: int


@dataclass(frozen=True, slots=True)
class MappingView:
    """A mapping with its object's number (0: anonymous) and its pages in RAM and in swap."""

    vma: Vma
    object: int
    resident: int
    swapped: int


@dataclass(frozen=True, slots=True)
class Translation:
    """An address explained. `slot` is -1 outside swap; `frame` 0 outside RAM; `mapping` None outside mappings.

    `hidden`: it is in RAM, and which frame it is in is not told.
    """

    address: int
    mapping: MappingView | None
    visits: tuple[Visit, ...] = ()
    frame: int = 0
    slot: int = -1
    cow: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class FrameView:
    """A frame. `mappings` are (space number, page number), at most as many as were asked for, of `mapping_count`."""

    frame: int
    use: Use
    mappings: tuple[tuple[int, int], ...]
    mapping_count: int
    group: str
    pins: int
    owner: str
    dirty: bool
    slot: int


@dataclass(frozen=True, slots=True)
class MemoryView:
    """The state of a host's memory, in frames and slots; `uses` by use, in the order of the uses."""

    total: int
    free: int
    uses: tuple[tuple[Use, int], ...]
    swap_slots: int
    free_swap_slots: int
    swapped_out: int
    swapped_in: int
    dropped: int
    policy: str


@dataclass(frozen=True, slots=True)
class FragmentationView:
    """How free memory is cut up, in frames and blocks, as the contract's `Fragmentation` states it."""

    free_blocks: tuple[int, ...]
    free: int
    movable_huge_blocks: int
    huge_blocks: int
    unmovable: int
    zeroed: int
    offline: int
    moved: int


@dataclass(frozen=True, slots=True)
class SwapAreaView:
    """A swap area, in slots and pages."""

    name: str
    slots: int
    priority: int
    used: int
    cached: int
    state: State
    written: int
    read: int
    corrupt: int
    disk: str = ""


@dataclass(frozen=True, slots=True)
class SwapSettingsView:
    """The host's settings of swapping and reclaim that are in effect, as the contract's `SwapSettings` states them."""

    policy: str
    swappiness: int
    readahead_pages: int
    low_watermark_frames: int
    high_watermark_frames: int
    zeroed_frames: int


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot in use. `user` is a name, `address` in the space or object; `frame` 0 when no frame has its bytes."""

    slot: int
    references: int
    user: str
    address: int
    group: str
    frame: int
    checksum: int


@dataclass(frozen=True, slots=True)
class SwapCheck:
    """What reading some slots found: the last one read, how many were, the corrupt ones, how many are still to read."""

    last: int
    checked: int
    corrupt: tuple[SlotView, ...]
    remaining: int
