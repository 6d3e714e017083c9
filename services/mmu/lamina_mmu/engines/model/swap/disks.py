"""Swap areas on disks of the machine: pages on their way to and from slots take time, and others go on meanwhile.

    reclaim: victims in transit ──▶ slots in a row ──▶ one transfer a run ──▶ done: clean, as if written at once
                                                            └──▶ failed: another area, or the page stays
    fault:   slot ──▶ a frame, BUSY, that has the slot (swap cache), neighbours alike ──▶ one transfer ──▶ awake
             whoever needs the page waits for the frame, and finds it in the swap cache, or the error that there was

A slot is given to nobody else while a write to it is under way: its bytes could come after those of the next user.
Source: Linux mm/page_io.c (swap_writepage, swap_read_folio), mm/swap_state.c (swap_cluster_readahead).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import DataLoss, LaminaError
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.domain.effects import frame_key, swap_area_key
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.swap.areas import State, SwapArea
from lamina_mmu.domain.swap.crc32c import crc32c
from lamina_mmu.domain.swap.transfers import DiskStore, SwapTransfer, runs
from lamina_mmu.engines.model.machine.state import Busy, Machine
from lamina_mmu.engines.model.swap.slots import assign_slot, is_dirty


@dataclass(slots=True)
class Written:
    """What became of frames that were to go to disks: those that are there, and why others are not."""

    frames: dict[int, None] = field(default_factory=dict)
    failures: dict[int, LaminaError] = field(default_factory=dict)


def read_slot(m: Machine, slot: int, group: int) -> Busy:
    """Begins to read a slot and its neighbours into frames; returns what whoever needs the page waits for.

    Raises Short, and the error of a read that ended since.
    """
    area = m.swap.area_of(slot)
    needed = slot - area.base
    failed = area.failed_reads.pop(needed, None)
    if failed is not None:
        raise failed
    frame = m.take(Use.ANONYMOUS, group)
    frames = {needed: _await_page(m, frame, slot)}
    for step in (1, -1):
        place = needed + step
        while place // m.readahead == needed // m.readahead and _is_wanted(m, area, place):
            frames[place] = _await_page(m, m.take(Use.ANONYMOUS, area.group[place]), area.base + place)
            place += step
    first = min(frames)
    ordered = tuple(frames[place] for place in range(first, first + len(frames)))
    _disk(area).begin(SwapTransfer(False, first, len(ordered), ordered, partial(_have_read, m, area, needed)))
    return Busy(frame_key(frame))


def _disk(area: SwapArea) -> DiskStore:
    assert area.disk is not None
    return area.disk


def _await_page(m: Machine, frame: int, slot: int) -> int:
    m.set_busy(frame, True)
    m.remember_copy(frame, slot)
    return frame


def _is_wanted(m: Machine, area: SwapArea, place: int) -> bool:
    """Returns whether a neighbour is worth reading, and no frame must be made free for it."""
    if not 0 <= place < area.count or not area.refs[place] or area.frame[place] or place in area.corrupt:
        return False
    return m.frames.free > m.high and m.groups.over(area.group[place]) is None


def _have_read(m: Machine, area: SwapArea, needed: int, transfer: SwapTransfer) -> None:
    """Takes pages that were read into the swap cache; an error of the page that was needed waits for who needs it."""
    transfer.done = True
    for place, frame in enumerate(transfer.frames, transfer.first):
        error = transfer.errors.get(place) or area.compare(place, m.ram.view(frame << PAGE_SHIFT, PAGE_SIZE))
        m.set_busy(frame, False)
        unused = not area.refs[place]
        if error is not None or unused:
            m.release(frame)
            if error is not None and place == needed and not unused:
                area.failed_reads[place] = error
            continue
        area.read_back += 1
        m.swap.read_back += 1
        m.policy.add(frame, m.frames.group[frame])
        if place == needed:
            area.fetched[place] = None


def write_out(m: Machine, frames: Sequence[int]) -> Step[Written]:
    """Writes those of dirty frames in transit that go to disks; each is tried in a second area when one fails."""
    result = Written()
    todo = [(frame, -1) for frame in frames if is_dirty(m, frame) and not m.ram.pins(frame)]
    for last in (False, True):
        placed: dict[int, dict[int, int]] = {}
        for frame, avoid in todo:
            slot = assign_slot(m, frame, avoid)
            if slot >= 0 and m.swap.area_of(slot).disk is not None:
                area = m.swap.area_of(slot)
                placed.setdefault(area.index, {})[slot - area.base] = frame
        begun = [(m.swap.by_index(index), one) for index in sorted(placed) for one in _begin(m, index, placed[index])]
        todo = []
        for area, transfer in begun:
            while not transfer.done:
                yield WaitFor(swap_area_key(area.index))
            for place, frame in enumerate(transfer.frames, transfer.first):
                error = transfer.errors.get(place)
                if error is None:
                    _have_written(m, area, place, frame)
                    result.frames[frame] = None
                    result.failures.pop(frame, None)
                    continue
                _note_failure(m, area, error)
                m.forget_copy(frame)
                result.failures[frame] = error
                if not last:
                    todo.append((frame, area.index))
    return result


def _begin(m: Machine, index: int, frames: dict[int, int]) -> list[SwapTransfer]:
    """Begins to write frames to slots of an area, one transfer for slots in a row."""
    area = m.swap.by_index(index)
    found: list[SwapTransfer] = []
    for first, count in runs(sorted(frames)):
        chosen = tuple(frames[place] for place in range(first, first + count))
        for place, frame in enumerate(chosen, first):
            area.sum[place] = crc32c(m.ram.view(frame << PAGE_SHIFT, PAGE_SIZE))
        transfer = SwapTransfer(True, first, count, chosen, partial(_write_ended, m, area))
        area.writing.update(dict.fromkeys(range(first, first + count)))
        _disk(area).begin(transfer)
        found.append(transfer)
    return found


def _write_ended(m: Machine, area: SwapArea, transfer: SwapTransfer) -> None:
    """Lets slots be used again, whether or not somebody still waits for the write."""
    transfer.done = True
    for place in range(transfer.first, transfer.first + transfer.count):
        area.write_ended(place)
    m.ports.wake(swap_area_key(area.index), None)


def _have_written(m: Machine, area: SwapArea, place: int, frame: int) -> None:
    area.note_written(place)
    m.swap.written += 1
    m.remember_copy(frame, area.base + place)
    if m.ram.pins(frame):
        m.soil(frame)  # somebody has it in hand, and may have written to it since


def _note_failure(m: Machine, area: SwapArea, error: LaminaError) -> None:
    if isinstance(error, DataLoss) and area.state == State.ACTIVE:
        area.state = State.FAILED
    m.record(m.names.swap_area(area.name), "swap_area.failed", rule="a write failed", reason=error.reason)


def check_places(m: Machine, area: SwapArea, places: Sequence[int]) -> Step[dict[int, LaminaError]]:
    """Reads slots of an area on a disk; returns what is wrong with those that are still in use afterwards."""
    wrong: dict[int, LaminaError] = {}
    for first, count in runs(list(places)):
        sums = [area.sum[place] for place in range(first, first + count)]
        transfer = SwapTransfer(False, first, count, (), partial(_have_checked, m, area))
        _disk(area).begin(transfer)
        while not transfer.done:
            yield WaitFor(swap_area_key(area.index))
        for place in range(first, first + count):
            data = transfer.data[(place - first) * PAGE_SIZE :][:PAGE_SIZE]
            if not area.is_used(place) or area.sum[place] != sums[place - first] or place in area.writing:
                continue  # it holds another page since
            error = transfer.errors.get(place) or area.compare(place, data)
            if error is not None:
                wrong[place] = error
    return wrong


def _have_checked(m: Machine, area: SwapArea, transfer: SwapTransfer) -> None:
    transfer.done = True
    m.ports.wake(swap_area_key(area.index), None)
