"""Frames with tags, compiled: their heads as a port reads them, and copies in the form in which they leave.

As `domain.admission` and `domain.tagging`: an access port reads 802.1Q tags, a trunk 802.1ad tags too. What is decided
about is loaded once, as in `pipeline.look`.
"""

from __future__ import annotations

from lamina_vswitch.domain.port import ring_layout as layout
from lamina_vswitch.plane.compiled import layout as job
from lamina_vswitch.plane.compiled import mac_table, rings
from lamina_vswitch.plane.compiled.intrinsics import (
    Word,
    compiled,
    i64,
    inlined,
    load16,
    load32,
    load64,
    prefetch,
    store8,
    store16,
    store32,
    store64,
    store_line,
    void,
)
from lamina_vswitch.plane.compiled.pipeline import HEADER_BYTES, TAG_BYTES, TPID

NONE, CUSTOMER, PRIORITY, PROVIDER, PROVIDER_PRIORITY = range(5)
"""How a frame is tagged: not at all, with 802.1Q and a VLAN or without one, with 802.1ad likewise."""
KIND_MASK, INNER, LONGER = 7, 8, 16
"""What TAGGED of a look says: the kind; whether another tag follows; whether that is one of 802.1Q, which may make a
frame longer."""
TPID_PROVIDER = 0xA888  # 88 a8, as a little-endian number
_ADDRESS = (1 << 48) - 1
_VID = 0x0FFF
_FRAME = layout.FRAME


@inlined(void(i64, i64, i64, i64, i64, i64, i64))
def look(frame: Word, one: Word, table: Word, mask: Word, secret: Word, native: Word, trunk: Word) -> None:
    """Loads the head of a frame, once for all, and asks for the places of its addresses in the table.

    `frame` is its place in the burst, `native` the VLAN of frames without a tag, `trunk` whether the port is one.
    """
    at, length = load64(frame), load64(frame + 8)
    store64(one + job.LENGTH, length)
    if length >= HEADER_BYTES and length < job.LADEN:
        low, whole = load64(at), length >= HEADER_BYTES + TAG_BYTES
        high = load64(at + 8) if whole else load32(at + 8) | load16(at + 12) << 32
        inner, tag, vlan = (high >> 32) & 0xFFFF, NONE, native
        provider = trunk != 0 and inner == TPID_PROVIDER
        if whole and (inner == TPID or provider):
            inner = load16(at + 16)
            vid = ((high >> 48) & 0x0F) << 8 | (high >> 56) & 0xFF
            tag = (PROVIDER if provider else CUSTOMER) + (1 if vid == 0 else 0)
            vlan = vid if vid != 0 else native
        tag |= INNER if inner in (TPID, TPID_PROVIDER) else 0
        tag |= LONGER if inner == TPID else 0
        source = (((low >> 48) & 0xFFFF) | (high & 0xFFFFFFFF) << 16) << mac_table.MAC_SHIFT | vlan | mac_table.OCCUPIED
        target = (low & _ADDRESS) << mac_table.MAC_SHIFT | vlan | mac_table.OCCUPIED
        source_hash, target_hash = mac_table.stirred(source, secret), mac_table.stirred(target, secret)
        prefetch(table + ((source_hash & mask) << mac_table.RECORD_SHIFT))
        prefetch(table + ((target_hash & mask) << mac_table.RECORD_SHIFT))
        store64(one + job.LOW, low)
        store64(one + job.HIGH, high)
        store64(one + job.SOURCE, source)
        store64(one + job.SOURCE_HASH, source_hash)
        store64(one + job.TARGET, target)
        store64(one + job.TARGET_HASH, target_hash)
        store64(one + job.TAGGED, tag)


@inlined(i64(i64))
def vlan_of(one: Word) -> Word:
    """Returns the VLAN that a frame says, or its port says for it."""
    return load64(one + job.SOURCE) & _VID


@inlined(i64(i64))
def kind_of(one: Word) -> Word:
    """Returns how a frame is tagged."""
    return load64(one + job.TAGGED) & KIND_MASK


@compiled(i64(i64, i64))
def longest(one: Word, mtu: Word) -> Word:
    """Returns how long a frame with such tags may be."""
    kind, tags = kind_of(one), 0
    if kind != NONE:
        tags = 1
    if kind >= PROVIDER and load64(one + job.TAGGED) & LONGER:
        tags = 2
    return mtu + HEADER_BYTES + TAG_BYTES * tags


@inlined(i64(i64, i64, i64, i64))
def put(row: Word, one: Word, source: Word, form: Word) -> Word:
    """Writes a frame into the next slot of a row's ring in a form; there is room. Returns how long it is there.

    Its addresses and outer tag come from the look, not from memory that its sender may still write.
    """
    index, slot_bytes = load64(row + job.NEXT), load64(row + job.SLOT_BYTES)
    slot = load64(row + job.RING) + layout.FIRST_SLOT + (index & load64(row + job.RING_MASK)) * slot_bytes
    length, high, vlan = load64(one + job.LENGTH), load64(one + job.HIGH), vlan_of(one)
    frame = slot + _FRAME
    rings.fetch_slot(row, index + 2)
    store64(frame, load64(one + job.LOW))
    store32(frame + 8, high)
    if form == job.UNTAGGED:
        length -= TAG_BYTES
        rings.copy(frame + 12, source + 16, length - 12)
    elif form == job.WITH_TAG:
        store16(frame + 12, TPID)
        store8(frame + 14, vlan >> 8)
        store8(frame + 15, vlan)
        store16(frame + 16, high >> 32)
        rings.copy(frame + 18, source + 14, length - 14)
        length += TAG_BYTES
    elif kind_of(one) == NONE:
        store16(frame + 12, high >> 32)
        rings.copy(frame + 14, source + 14, length - 14)
    else:
        store64(frame + 8, high)
        if form == job.RETAGGED:
            store8(frame + 14, (high >> 48) & 0xF0 | vlan >> 8)
            store8(frame + 15, vlan)
        rings.copy(frame + 16, source + 16, length - 16)
    store_line(slot, length)
    if load64(row + job.RECORDS):
        rings.clear_record(slot)
    store64(row + job.NEXT, index + 1)
    store64(row + job.SENT_BYTES, load64(row + job.SENT_BYTES) + length)
    return length


@inlined(void(i64, i64))
def count(counter: Word, size: Word) -> None:
    """Counts a frame and its bytes."""
    store64(counter, load64(counter) + 1)
    store64(counter + 8, load64(counter + 8) + size)
