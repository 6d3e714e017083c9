"""Rings in shared memory, compiled: one producer, one consumer, each of which takes the other for hostile.

Layout: `domain/port/ring_layout.py`. An index is read once in a run and checked; a length is read once and checked
against the slot before anything else is done with it.
"""

from __future__ import annotations

from lamina_kit.bus.atomics import fence
from lamina_vswitch.domain.port import ring_layout as layout
from lamina_vswitch.plane.compiled import layout as job
from lamina_vswitch.plane.compiled.intrinsics import (
    Word,
    acquire32,
    compiled,
    copy16,
    copy32,
    copy64,
    i64,
    inlined,
    load8,
    load32,
    load64,
    prefetch,
    prefetch_to_write,
    release32,
    store8,
    store16,
    store32,
    store64,
    store_line,
    void,
)

CORRUPT = -1
_PRODUCER, _CONSUMER, _NEED_WAKEUP, _DROPPED = layout.PRODUCER, layout.CONSUMER, layout.NEED_WAKEUP, layout.DROPPED
_FIRST_SLOT, _FRAME, _RECORD, _OFFLOAD = layout.FIRST_SLOT, layout.FRAME, layout.RECORD, layout.OFFLOAD
_AHEAD = 2
"""How many slots ahead a ring's memory is fetched."""
_INDEX_MASK = layout.INDEX_MASK
_HEAD_BYTES = 14


@inlined(void(i64, i64, i64))
def copy(target: Word, source: Word, size: Word) -> None:
    """Copies `size` bytes, no byte more; the last piece overlaps the one before it."""
    if size >= 64:
        for at in range(0, size - 63, 64):
            copy64(target + at, source + at)
        if size & 63:
            copy64(target + size - 64, source + size - 64)
    elif size >= 16:
        if size > 32:
            copy32(target, source)
            copy32(target + size - 32, source + size - 32)
        else:
            copy16(target, source)
            copy16(target + size - 16, source + size - 16)
    elif size >= 8:
        store64(target, load64(source))
        store64(target + size - 8, load64(source + size - 8))
    else:
        for at in range(size):
            store8(target + at, load8(source + at))


@compiled(void(i64))
def clear_record(slot: Word) -> None:
    """Writes a slot's trace record: no trace."""
    for at in range(_RECORD, _RECORD + layout.RECORD_BYTES, 8):
        store64(slot + at, 0)


@compiled(i64(i64, i64))
def filled(ring: Word, slots: Word) -> Word:
    """Returns how many slots are filled, or CORRUPT."""
    used = (acquire32(ring + _PRODUCER) - acquire32(ring + _CONSUMER)) & _INDEX_MASK
    return used if used <= slots else CORRUPT


@compiled(i64(i64, i64, i64, i64, i64))
def take(ring: Word, slots: Word, slot_bytes: Word, most: Word, burst: Word) -> Word:
    """Writes address and length of up to `most` frames that wait in a ring into a burst; returns how many, or CORRUPT.

    The frames stay where they are until `give_back`. A frame with an offload header or a trace record gets LADEN.
    """
    waiting = filled(ring, slots)
    if waiting == CORRUPT:
        return CORRUPT
    waiting = min(waiting, most)
    first = acquire32(ring + _CONSUMER)
    for index in range(waiting):
        slot = ring + _FIRST_SLOT + ((first + index) & (slots - 1)) * slot_bytes
        prefetch(slot + 8 * slot_bytes)
        length = load32(slot)
        if length > slot_bytes - _FRAME:
            return CORRUPT
        laden = load64(slot + _OFFLOAD) | load64(slot + _OFFLOAD + 8) | load32(slot + _OFFLOAD + 16)
        laden |= load64(slot + _RECORD) | load64(slot + _RECORD + 8) | load64(slot + _RECORD + 16)
        place = burst + (index << job.PLACE_SHIFT)
        store64(place, slot + _FRAME)
        store64(place + 8, length | (job.LADEN if laden else 0))
    return waiting


@compiled(void(i64, i64))
def give_back(ring: Word, frames: Word) -> None:
    """Frees the slots of frames that were taken."""
    release32(ring + _CONSUMER, acquire32(ring + _CONSUMER) + frames)


@compiled(i64(i64, i64))
def lie_down(ring: Word, slots: Word) -> Word:
    """Says that the consumer of a ring sleeps; returns how many slots are filled, looked at after that, or CORRUPT."""
    release32(ring + _NEED_WAKEUP, 1)
    fence()
    return filled(ring, slots)


@compiled(void(i64))
def open_row(row: Word) -> None:
    """Looks how much room the ring of a row has, for this run: none when its consumer broke the indices."""
    ring, slots = load64(row + job.RING), load64(row + job.RING_MASK) + 1
    used, index = filled(ring, slots), acquire32(ring + _PRODUCER)
    store64(row + job.USED, 1)
    store64(row + job.NEXT, index)
    store64(row + job.END, index if used == CORRUPT else index + slots - used)
    store64(row + job.STATUS, job.BROKE if used == CORRUPT else 0)
    store64(row + job.SENT, load64(row + job.SENT) - index)


@inlined(void(i64, i64))
def fetch_slot(row: Word, index: Word) -> None:
    """Asks for the cache lines of a slot that a short frame takes: their memory is slow, and will be wanted."""
    slot = load64(row + job.RING) + _FIRST_SLOT + (index & load64(row + job.RING_MASK)) * load64(row + job.SLOT_BYTES)
    prefetch_to_write(slot)
    prefetch_to_write(slot + _FRAME)


@inlined(void(i64, i64, i64))
def put(row: Word, one: Word, source: Word) -> None:
    """Writes a frame into the next slot of a row's ring, untagged; there is room.

    Its addresses and type come from the look, not from memory that its sender may still write.
    """
    index, slot_bytes = load64(row + job.NEXT), load64(row + job.SLOT_BYTES)
    slot = load64(row + job.RING) + _FIRST_SLOT + (index & load64(row + job.RING_MASK)) * slot_bytes
    length = load64(one + job.LENGTH)
    low, high = load64(one + job.LOW), load64(one + job.HIGH)
    frame = slot + _FRAME
    fetch_slot(row, index + _AHEAD)
    store64(frame, low)
    if load64(one + job.TAGGED):
        length -= 4
        store32(frame + 8, high)
        copy(frame + 12, source + 16, length - 12)
    else:
        store32(frame + 8, high)
        store16(frame + 12, high >> 32)
        copy(frame + _HEAD_BYTES, source + _HEAD_BYTES, length - _HEAD_BYTES)
    store_line(slot, length)
    if load64(row + job.RECORDS):
        clear_record(slot)
    store64(row + job.NEXT, index + 1)
    store64(row + job.SENT_BYTES, load64(row + job.SENT_BYTES) + length)


@compiled(i64(i64))
def must_wake(ring: Word) -> Word:
    """Returns 1, and clears the wish, when the consumer of a ring sleeps. Called after an index was published."""
    fence()
    if acquire32(ring + _NEED_WAKEUP) == 0:
        return 0
    release32(ring + _NEED_WAKEUP, 0)
    return 1


@compiled(i64(i64, i64))
def close_row(row: Word, report: Word) -> Word:
    """Publishes what was written into a row's ring, and looks whether its consumer has to be woken.

    Returns 1 when Python has to hear of it, which `report` then tells.
    """
    ring, index = load64(row + job.RING), load64(row + job.NEXT)
    release32(ring + _PRODUCER, index)
    full, status = load64(row + job.FULL), load64(row + job.STATUS)
    if full:
        store64(ring + _DROPPED, load64(ring + _DROPPED) + full)
    if must_wake(ring):
        status |= job.WAKE
    store64(row + job.SENT, load64(row + job.SENT) + index)
    store64(row + job.USED, 0)
    store64(row + job.FULL, 0)
    store64(report + 8, full)
    store64(report + 16, load64(row + job.FIRST_FULL))
    store64(report + 24, status)
    return 1 if full or status else 0


@compiled(i64(i64, i64, i64, i64, i64))
def fill(ring: Word, slots: Word, slot_bytes: Word, burst: Word, count: Word) -> Word:
    """Writes the frames of a burst into a ring as they are, from the first on; returns how many fitted, or CORRUPT.

    A frame that is longer than a slot ends it, as a full ring does.
    """
    used = filled(ring, slots)
    if used == CORRUPT:
        return CORRUPT
    first, index = acquire32(ring + _PRODUCER), 0
    while index < count and used + index < slots:
        place = burst + (index << job.PLACE_SHIFT)
        length = load64(place + 8)
        if length > slot_bytes - _FRAME:
            break
        slot = ring + _FIRST_SLOT + ((first + index) & (slots - 1)) * slot_bytes
        for line in (0, _RECORD, _FRAME):
            prefetch_to_write(slot + 4 * slot_bytes + line)
        clear_record(slot)
        store_line(slot, length)
        copy(slot + _FRAME, load64(place), length)
        index += 1
    release32(ring + _PRODUCER, first + index)
    if index < count:
        store64(ring + _DROPPED, load64(ring + _DROPPED) + count - index)
    return index
