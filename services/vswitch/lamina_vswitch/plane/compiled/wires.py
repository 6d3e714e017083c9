"""Ways out to the kernel, compiled: frames are listed where they lie while a burst is switched, and go when it ends.

A *wire* belongs to one port. Its list has address and length of each frame with the kernel's header, in the form of an
`iovec`; for a socket there is a message for each place of the list. Finished frames leave by a second socket, which
wants no header: the kernel takes a fifth less time for one. What the kernel does not take now is left in the
list for Python, which lets it wait. While something waits nothing passes it.
"""

from __future__ import annotations

from lamina_vswitch.plane.compiled import layout, system_calls
from lamina_vswitch.plane.compiled.intrinsics import Word, compiled, i64, load32, load64, store32, store64, void
from lamina_vswitch.plane.compiled.unfinished import HEAD_BYTES

FILE, IS_SOCKET, WAITS, POSTED, GONE, FAILED, LIST, MESSAGES, BARE_FILE = range(0, 72, 8)
"""Descriptor for frames with headers; whether it is a packet socket, else a TAP device; whether frames wait in Python;
frames in the list, how many are dealt with, and those that failed; addresses of the list and of the messages; file
for frames without headers, or -1. The length of a frame that failed is negative."""
WIRE_WORDS = 9
IS_BARE = 60
"""Where a message says whether its frame is in the list without a header: behind what the kernel knows of it."""
MESSAGE_SHIFT, LIST_SHIFT = 6, 4
SENT, SENT_BYTES = layout.SENT, layout.SENT_BYTES
_LENGTH_MASK = layout.LADEN - 1


@compiled(void(i64, i64, i64))
def post(wire: Word, frame: Word, length: Word) -> None:
    """Puts a frame into the list, which has room: a burst is not longer than it."""
    posted = load64(wire + POSTED)
    place = load64(wire + LIST) + (posted << LIST_SHIFT)
    bare = 1 if load64(wire + BARE_FILE) >= 0 and length & layout.CARRIED == 0 else 0
    head = 0 if bare else HEAD_BYTES
    store64(place, frame - head)
    store64(place + 8, (length & _LENGTH_MASK) + head)
    store32(load64(wire + MESSAGES) + (posted << MESSAGE_SHIFT) + IS_BARE, bare)
    store64(wire + POSTED, posted + 1)


@compiled(i64(i64))
def _send_some(wire: Word) -> Word:
    """Sends the next frames; returns how many went, or a negative error."""
    file, gone = load64(wire + FILE), load64(wire + GONE)
    if load64(wire + IS_SOCKET):
        first, end = load64(wire + MESSAGES) + IS_BARE, gone + 1
        bare = load32(first + (gone << MESSAGE_SHIFT))
        while end < load64(wire + POSTED) and load32(first + (end << MESSAGE_SHIFT)) == bare:
            end += 1
        file = load64(wire + BARE_FILE) if bare else file
        return system_calls.send(file, first - IS_BARE + (gone << MESSAGE_SHIFT), end - gone)
    place = load64(wire + LIST) + (gone << LIST_SHIFT)
    found = system_calls.write(file, load64(place), load64(place + 8))
    return 1 if found >= 0 else found


@compiled(i64(i64))
def flush(wire: Word) -> Word:
    """Sends what is in the list; returns the bytes of frames that went. GONE says how far it came."""
    size = 0
    store64(wire + GONE, 0)
    store64(wire + FAILED, 0)
    while load64(wire + GONE) < load64(wire + POSTED) and not load64(wire + WAITS):
        gone = load64(wire + GONE)
        found = _send_some(wire)
        if found == -system_calls.INTERRUPTED:
            continue
        if found == -system_calls.AGAIN:
            break
        if found < 0:
            store64(wire + FAILED, load64(wire + FAILED) + 1)
            length = load64(wire + LIST) + (gone << LIST_SHIFT) + 8
            store64(length, -load64(length))
            store64(wire + GONE, gone + 1)
            continue
        for at in range(gone, gone + found):
            bare = load32(load64(wire + MESSAGES) + (at << MESSAGE_SHIFT) + IS_BARE)
            size += load64(load64(wire + LIST) + (at << LIST_SHIFT) + 8) - (0 if bare else HEAD_BYTES)
        store64(wire + GONE, gone + found)
    return size


@compiled(i64(i64, i64))
def close_row(row: Word, report: Word) -> Word:
    """Sends what was listed for a row's wire, and counts it. Returns 1 when Python has to see to what did not go."""
    wire = load64(row + layout.WIRE)
    size = flush(wire)
    failed, left = load64(wire + FAILED), load64(wire + POSTED) - load64(wire + GONE)
    store64(row + SENT, load64(row + SENT) + load64(wire + GONE) - failed)
    store64(row + SENT_BYTES, load64(row + SENT_BYTES) + size)
    store64(row + layout.USED, 0)
    store64(report + 8, failed)
    store64(report + 16, left)
    store64(report + 24, layout.LEFT)
    if failed or left:
        return 1
    store64(wire + POSTED, 0)
    return 0
