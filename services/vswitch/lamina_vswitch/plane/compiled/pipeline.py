"""The pipeline, compiled: what `domain.decision.decide` decides about one frame, over flat tables.

Both are held together by a property test, frame by frame. What is not here makes the run stop with SLOW, before
anything about the frame was noted, and the reference decides: frames with side columns, and frames for ports where a
policy has to look.
"""

from __future__ import annotations

from lamina_vswitch.plane.compiled import layout, mac_table
from lamina_vswitch.plane.compiled.intrinsics import (
    Word,
    compiled,
    i64,
    inlined,
    load16,
    load32,
    load64,
    prefetch,
    store64,
    void,
)

RUNT, OVERSIZE, VLAN_TRUNCATED, VLAN_MISMATCH = 1, 2, 3, 4
SOURCE_INVALID, LINK_LOCAL, SAME_PORT, NO_DESTINATION, DESTINATION_DOWN = 6, 7, 8, 9, 10
"""Reasons for drops that are decided here; numbers of `domain.drop.DropReason`."""
FLOOD, NOT_HERE, NO_ROOM = 0, -100, -101
"""What is decided beside the slot of a port (above 0) and the reason of a drop (below 0, as its negative)."""
HEADER_BYTES, TAG_BYTES = 14, 4
_ADDRESS, _VID = (1 << 48) - 1, 0x0FFF
TPID = 0x0081  # 81 00, as a little-endian number
_BOTH = layout.UP | layout.PLAIN
GROUP = 1 << mac_table.MAC_SHIFT
"""The bit of a key that tells a group address."""
_LINK_LOCAL = 0x0000C28001  # 01 80 c2 00 00, likewise


@inlined(void(i64, i64, i64, i64, i64, i64))
def look(frame: Word, one: Word, table: Word, mask: Word, secret: Word, vlan: Word) -> None:
    """Loads the head of a frame, once for all, and asks for the places of its addresses in the table.

    `frame` is its place in the burst, `vlan` the VLAN with the bit OCCUPIED. A peer may change a frame in shared memory
    at any time: what is decided about and what is delivered are the bytes that were loaded here.
    """
    at, length = load64(frame), load64(frame + 8)
    store64(one + layout.LENGTH, length)
    if length >= HEADER_BYTES and length & layout.LADEN == 0:
        low = load64(at)
        whole = length >= HEADER_BYTES + TAG_BYTES
        high = load64(at + 8) if whole else load32(at + 8) | load16(at + 12) << 32
        tagged = whole and (high >> 32) & 0xFFFF == TPID
        source = (((low >> 48) & 0xFFFF) | (high & 0xFFFFFFFF) << 16) << mac_table.MAC_SHIFT | vlan
        target = (low & _ADDRESS) << mac_table.MAC_SHIFT | vlan
        source_hash, target_hash = mac_table.stirred(source, secret), mac_table.stirred(target, secret)
        prefetch(table + ((source_hash & mask) << mac_table.RECORD_SHIFT))
        prefetch(table + ((target_hash & mask) << mac_table.RECORD_SHIFT))
        store64(one + layout.LOW, low)
        store64(one + layout.HIGH, high)
        store64(one + layout.SOURCE, source)
        store64(one + layout.SOURCE_HASH, source_hash)
        store64(one + layout.TARGET, target)
        store64(one + layout.TARGET_HASH, target_hash)
        store64(one + layout.TAGGED, tagged)


@compiled(i64(i64, i64))
def refusal(work: Word, one: Word) -> Word:
    """Returns why a frame is dropped before its source is learned, as a negative reason; 0 when it is not."""
    length = load64(one + layout.LENGTH)
    if length < HEADER_BYTES:
        return -RUNT
    high = load64(one + layout.HIGH)
    tagged = (high >> 32) & 0xFFFF == TPID
    if length > load64(work + layout.MTU) + HEADER_BYTES + (TAG_BYTES if tagged else 0):
        return -OVERSIZE
    if tagged:
        if length < HEADER_BYTES + TAG_BYTES:
            return -VLAN_TRUNCATED
        vid = ((high >> 48) & 0x0F) << 8 | (high >> 56) & 0xFF
        if vid != 0 and vid != load64(work + layout.VLAN):
            return -VLAN_MISMATCH
    source = (load64(one + layout.SOURCE) >> mac_table.MAC_SHIFT) & _ADDRESS
    return -SOURCE_INVALID if source & 1 or source == 0 else 0


@compiled(i64(i64, i64, i64))
def destination(work: Word, one: Word, record: Word) -> Word:
    """Returns where a frame to an address goes by its `record` in the table: slot of a port, FLOOD, or a reason."""
    target = load64(one + layout.LOW) & _ADDRESS
    if target & ((1 << 40) - 1) == _LINK_LOCAL and 0 < target >> 40 < 16:
        return -LINK_LOCAL
    if target & 1 or not mac_table.alive(load64(work + layout.HEAD), record, load64(work + layout.NOW)):
        return FLOOD
    slot = mac_table.port_of(record)
    if slot == load64(work + layout.SLOT):
        return -SAME_PORT
    row = load64(work + layout.PORTS) + (slot << layout.ROW_SHIFT)
    state = load64(row + layout.STATE)
    if not state & layout.UP or load64(row + layout.ROW_VLAN) != load64(work + layout.VLAN):
        return -DESTINATION_DOWN
    return slot if state & layout.PLAIN else NOT_HERE


@compiled(void(i64, i64))
def tally(pair: Word, index: Word) -> None:
    """Counts a frame in a pair (how many, the first of them)."""
    known = load64(pair)
    if known == 0:
        store64(pair + 8, index)
    store64(pair, known + 1)


@inlined(i64(i64, i64, i64, i64, i64, i64, i64, i64, i64))
def known_route(
    one: Word,
    table: Word,
    mask: Word,
    entered: Word,
    vlan: Word,
    oldest: Word,
    longest: Word,
    ports: Word,
    fresh: Word,
) -> Word:
    """Returns the port of a frame between two stations about which nothing is news, or 0. The source is refreshed.

    That is: an untagged frame of at most `longest` bytes, from a dynamic entry of the port where it `entered` to an
    entry of another port that the plane delivers to, both seen after `oldest` (counted from the table's BASE). `fresh`
    is the second half of a record of the port that is seen now. It takes its numbers one by one, which keeps them in
    registers, because nearly every frame is one of these.
    """
    slot, length, target = 0, load64(one + layout.LENGTH), load64(one + layout.TARGET)
    if length >= HEADER_BYTES and length <= longest and (load64(one + layout.HIGH) >> 32) & 0xFFFF != TPID:
        source = load64(one + layout.SOURCE)
        source_entry = source | (entered & mac_table.UPPER_MASK) << mac_table.UPPER_SHIFT
        origin = mac_table.search(table, mask, source, load64(one + layout.SOURCE_HASH))
        known = mac_table.search(table, mask, target, load64(one + layout.TARGET_HASH))
        time = mac_table.seen(origin)
        lives = load64(origin) == source_entry and time > oldest and time != mac_table.ALWAYS
        reached = load64(known) != 0 and mac_table.seen(known) > oldest
        stays = load64(origin + 8) & mac_table.PORT_MASK == fresh & mac_table.PORT_MASK
        if lives and reached and stays and target & GROUP == 0:
            slot = mac_table.port_of(known)
            row = ports + (slot << layout.ROW_SHIFT)
            there = load64(row + layout.STATE) & _BOTH == _BOTH and load64(row + layout.ROW_VLAN) == vlan
            if slot == entered or not there:
                slot = 0
            else:
                store64(origin + 8, fresh)
    return slot


@compiled(i64(i64, i64, i64))
def carried_route(work: Word, one: Word, port: Word) -> Word:
    """Returns the port of an unfinished frame that may pass as it is, which has a wire, or NOT_HERE.

    As `known_route`: both stations are known, nothing about them is news, and the source is refreshed.
    """
    head, now_ns = load64(work + layout.HEAD), load64(work + layout.NOW)
    target, entered = load64(one + layout.TARGET), load64(work + layout.SLOT)
    origin = mac_table.find_at(head, load64(one + layout.SOURCE), load64(one + layout.SOURCE_HASH))
    known = mac_table.find_at(head, target, load64(one + layout.TARGET_HASH))
    if load64(one + layout.TAGGED) or target & GROUP or not load64(work + layout.PRIVATE):
        return NOT_HERE
    if not mac_table.alive(head, origin, now_ns) or not mac_table.alive(head, known, now_ns):
        return NOT_HERE
    slot = mac_table.port_of(known)
    if mac_table.port_of(origin) != entered or slot == entered:
        return NOT_HERE
    if mac_table.seen(origin) == mac_table.ALWAYS or mac_table.seen(known) == mac_table.ALWAYS:
        return NOT_HERE
    row = load64(work + layout.PORTS) + (slot << layout.ROW_SHIFT)
    if load64(row + layout.STATE) & _BOTH != _BOTH or load64(row + layout.ROW_VLAN) != load64(port + layout.ROW_VLAN):
        return NOT_HERE
    if load64(row + layout.RING) or not load64(row + layout.WIRE):
        return NOT_HERE
    store64(origin + 8, mac_table.stamp(entered, now_ns - load64(head + mac_table.BASE)))
    return slot


@compiled(i64(i64, i64, i64))
def decide(work: Word, one: Word, index: Word) -> Word:
    """Decides about a frame and learns from it.

    Returns the slot of a port, FLOOD, a negative reason, NOT_HERE or NO_ROOM (of the table); nothing is noted for the
    last two.
    """
    if load64(one + layout.LENGTH) >= layout.LADEN:
        return NOT_HERE
    refused = refusal(work, one)
    if refused < 0:
        return refused
    head, now_ns = load64(work + layout.HEAD), load64(work + layout.NOW)
    record = mac_table.find_at(head, load64(one + layout.TARGET), load64(one + layout.TARGET_HASH))
    found = destination(work, one, record)
    port = load64(work + layout.PORTS) + (load64(work + layout.SLOT) << layout.ROW_SHIFT)
    if found == NOT_HERE or (found == FLOOD and not load64(port + layout.STATE) & layout.FLOODS):
        return NOT_HERE
    source = load64(one + layout.SOURCE)
    source_record = mac_table.find_at(head, source, load64(one + layout.SOURCE_HASH))
    learned = mac_table.learn_at(head, source_record, source, load64(work + layout.SLOT), now_ns)
    if learned == mac_table.GROW:
        return NO_ROOM
    store64(work + layout.LAST_LEARNED, learned)
    if learned != mac_table.REFRESHED:
        store64(work + layout.NOTED, 1)
        tally(work + layout.LEARNED + 16 * learned, index)
        if learned == mac_table.MOVED and load64(work + layout.LEARNED + 16 * learned) == 1:
            store64(work + layout.MOVED_FROM, load64(head + mac_table.MOVED_FROM))
        record = mac_table.find_at(head, load64(one + layout.TARGET), load64(one + layout.TARGET_HASH))
        found = destination(work, one, record)
    if found == FLOOD and load64(port + layout.FLOOD_SIZE) < 2:
        return -NO_DESTINATION
    return found
