"""Frames out of the kernel, compiled: walking the ring of a packet socket, and reading a TAP device, a burst at a time.

An *intake* is one descriptor. Frames of a packet socket stay in the slots of the ring that it shares with the kernel,
until `give_back`; one that is longer than a slot waits whole in the socket's queue, and is fetched from there. Frames
of a TAP device are read into an arena. Either way the kernel's header lies right before each frame.

Source: Documentation/networking/packet_mmap.rst (TPACKET_V2, TP_STATUS_COPY), net/packet/af_packet.c, tuntap.rst.
"""

from __future__ import annotations

from lamina_vswitch.plane.compiled import layout, system_calls
from lamina_vswitch.plane.compiled.intrinsics import (
    Word,
    acquire32,
    compiled,
    i64,
    load8,
    load16,
    load32,
    load64,
    prefetch,
    release32,
    store64,
    void,
)
from lamina_vswitch.plane.compiled.unfinished import HEAD_BYTES, weighed

FILE, RING, SLOT_BYTES, SLOTS, NEXT, MTU, MOST = range(0, 56, 8)
"""Descriptor; address of the ring, bytes of a slot, number of slots, the next one; the switch's MTU; most frames."""
ARENA, ARENA_BYTES, PLACES, TAGS = range(56, 88, 8)
"""Address and size of the arena; addresses of the burst and of a tag for each of its frames: 0, or the tag with bit 32
set, its type above its control information."""
USED, FRAMES, CUT, LOST, ERROR = range(88, 128, 8)
"""What was found: slots that were walked, frames in the burst, frames that were cut, whether the kernel counted frames
for which there was no room, and an error: the one that ended the reading, or of a packet socket; 0 for none."""
INTAKE_WORDS = 16

LONGEST = HEAD_BYTES + 65535 + 18
"""Bytes that one frame takes in the arena at most, with its header."""

# struct tpacket2_hdr, and the sockaddr_ll behind it
STATUS, LENGTH, HERE, BEGIN, TAG, TAG_TYPE, PACKET_TYPE = 0, 4, 8, 12, 24, 26, 42
KERNEL, USER, COPY, LOSING, TAG_VALID, TAG_TYPE_VALID = 0, 1, 2, 4, 1 << 4, 1 << 6
OUTGOING = 4
TAGGED = 1 << 32
_TPID = 0x8100
_AHEAD = 4
_TRIES = 8


@compiled(i64(i64))
def _tag(slot: Word) -> Word:
    """Returns the tag that the kernel took off a frame, as TAGS says it."""
    status = load32(slot + STATUS)
    if status & TAG_VALID == 0:
        return 0
    kind = load16(slot + TAG_TYPE) if status & TAG_TYPE_VALID else _TPID
    return TAGGED | kind << 16 | load16(slot + TAG)


@compiled(i64(i64, i64))
def _fetched(intake: Word, at: Word) -> Word:
    """Fetches the frame that waits in the socket's queue into the arena; returns its length, or 0 for none.

    An error of the socket is told once, in the place of a frame, which is there still.
    """
    found = -system_calls.INTERRUPTED
    for _ in range(_TRIES):
        found = system_calls.receive(load64(intake + FILE), load64(intake + ARENA) + at, LONGEST)
        if found >= 0 or found == -system_calls.AGAIN:
            break
        if found != -system_calls.INTERRUPTED:
            store64(intake + ERROR, -found)
    return max(found - HEAD_BYTES, 0)


@compiled(void(i64, i64, i64, i64))
def _note(intake: Word, frame: Word, length: Word, tag: Word) -> None:
    """Puts a frame into the burst."""
    number = load64(intake + FRAMES)
    place = load64(intake + PLACES) + (number << layout.PLACE_SHIFT)
    store64(place, frame)
    store64(place + 8, length | layout.LADEN if tag else weighed(frame, length, load64(intake + MTU)))
    store64(load64(intake + TAGS) + 8 * number, tag)
    store64(intake + FRAMES, number + 1)


@compiled(void(i64))
def walk(intake: Word) -> None:
    """Finds the next frames in the ring of a packet socket. Those that this machine sent are passed over."""
    ring, slot_bytes, slots = load64(intake + RING), load64(intake + SLOT_BYTES), load64(intake + SLOTS)
    number, used, room, arena = load64(intake + NEXT), 0, 0, load64(intake + ARENA_BYTES)
    for word in (FRAMES, CUT, LOST, ERROR):
        store64(intake + word, 0)
    while used < load64(intake + MOST) and room + LONGEST <= arena:
        slot = ring + number * slot_bytes
        status = acquire32(slot + STATUS)
        if status & USER == 0:
            break
        ahead = number + _AHEAD if number + _AHEAD < slots else number + _AHEAD - slots
        prefetch(ring + ahead * slot_bytes)
        prefetch(ring + ahead * slot_bytes + 64)
        used += 1
        number = number + 1 if number + 1 < slots else 0
        frame, length = slot + load16(slot + BEGIN), load32(slot + LENGTH)
        if status & LOSING:
            store64(intake + LOST, 1)
        if status & COPY:
            frame, length = load64(intake + ARENA) + room + HEAD_BYTES, _fetched(intake, room)
            room += (length + HEAD_BYTES + 63) & -64
        elif load32(slot + HERE) < length:
            length = 0
        if length == 0:
            store64(intake + CUT, load64(intake + CUT) + 1)
        elif load8(slot + PACKET_TYPE) != OUTGOING:
            _note(intake, frame, length, _tag(slot))
    store64(intake + USED, used)


@compiled(void(i64))
def give_back(intake: Word) -> None:
    """Gives the slots that were walked back to the kernel."""
    ring, slot_bytes, slots = load64(intake + RING), load64(intake + SLOT_BYTES), load64(intake + SLOTS)
    number = load64(intake + NEXT)
    for _ in range(load64(intake + USED)):
        release32(ring + number * slot_bytes + STATUS, KERNEL)
        number = number + 1 if number + 1 < slots else 0
    store64(intake + NEXT, number)
    store64(intake + USED, 0)


@compiled(void(i64))
def read(intake: Word) -> None:
    """Reads the next frames of a TAP device."""
    room, arena = 0, load64(intake + ARENA_BYTES)
    store64(intake + FRAMES, 0)
    store64(intake + ERROR, 0)
    while load64(intake + FRAMES) < load64(intake + MOST) and room + LONGEST <= arena:
        at = load64(intake + ARENA) + room
        found = system_calls.read(load64(intake + FILE), at, LONGEST)
        if found == -system_calls.INTERRUPTED:
            continue
        if found < HEAD_BYTES:
            if found != -system_calls.AGAIN:
                store64(intake + ERROR, max(-found, 1))
            break
        _note(intake, at + HEAD_BYTES, found - HEAD_BYTES, 0)
        room += (found + 63) & -64
