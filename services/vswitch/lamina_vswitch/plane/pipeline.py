"""The pipeline, compiled: what `domain.decision.decide` decides about one frame, over flat tables.

Both are held together by a property test, frame by frame. What is not here makes the run stop with SLOW, before
anything about the frame was noted, and the reference decides: frames with side columns, and frames for ports where a
policy has to look.
"""

from __future__ import annotations

from lamina_vswitch.plane import job, macs
from lamina_vswitch.plane.native import Word, compiled, i64, inlined, load16, load32, load64, prefetch, store64, void

RUNT, OVERSIZE, VLAN_TRUNCATED, VLAN_MISMATCH = 1, 2, 3, 4
SOURCE_INVALID, LINK_LOCAL, SAME_PORT, NO_DESTINATION, DESTINATION_DOWN = 6, 7, 8, 9, 10
"""Reasons for drops that are decided here; numbers of `domain.drop.DropReason`."""
FLOOD, NOT_HERE, NO_ROOM = 0, -100, -101
"""What is decided beside the slot of a port (above 0) and the reason of a drop (below 0, as its negative)."""
HEADER_BYTES, TAG_BYTES = 14, 4
_ADDRESS, _VID = (1 << 48) - 1, 0x0FFF
TPID = 0x0081  # 81 00, as a little-endian number
_BOTH = job.UP | job.PLAIN
GROUP = 1 << macs.MAC_SHIFT
"""The bit of a key that tells a group address."""
_LINK_LOCAL = 0x0000C28001  # 01 80 c2 00 00, likewise


@inlined(void(i64, i64, i64, i64, i64, i64))
def look(frame: Word, one: Word, table: Word, mask: Word, secret: Word, vlan: Word) -> None:
    """Loads the head of a frame, once for all, and asks for the places of its addresses in the table.

    `frame` is its place in the burst, `vlan` the VLAN with the bit OCCUPIED. A peer may change a frame in shared memory
    at any time: what is decided about and what is delivered are the bytes that were loaded here.
    """
    at, length = load64(frame), load64(frame + 8)
    store64(one + job.LENGTH, length)
    if length >= HEADER_BYTES and length & job.LADEN == 0:
        low = load64(at)
        whole = length >= HEADER_BYTES + TAG_BYTES
        high = load64(at + 8) if whole else load32(at + 8) | load16(at + 12) << 32
        tagged = whole and (high >> 32) & 0xFFFF == TPID
        source = (((low >> 48) & 0xFFFF) | (high & 0xFFFFFFFF) << 16) << macs.MAC_SHIFT | vlan
        target = (low & _ADDRESS) << macs.MAC_SHIFT | vlan
        source_hash, target_hash = macs.stirred(source, secret), macs.stirred(target, secret)
        prefetch(table + ((source_hash & mask) << macs.RECORD_SHIFT))
        prefetch(table + ((target_hash & mask) << macs.RECORD_SHIFT))
        store64(one + job.LOW, low)
        store64(one + job.HIGH, high)
        store64(one + job.SOURCE, source)
        store64(one + job.SOURCE_HASH, source_hash)
        store64(one + job.TARGET, target)
        store64(one + job.TARGET_HASH, target_hash)
        store64(one + job.TAGGED, tagged)


@compiled(i64(i64, i64))
def refusal(work: Word, one: Word) -> Word:
    """Returns why a frame is dropped before its source is learned, as a negative reason; 0 when it is not."""
    length = load64(one + job.LENGTH)
    if length < HEADER_BYTES:
        return -RUNT
    high = load64(one + job.HIGH)
    tagged = (high >> 32) & 0xFFFF == TPID
    if length > load64(work + job.MTU) + HEADER_BYTES + (TAG_BYTES if tagged else 0):
        return -OVERSIZE
    if tagged:
        if length < HEADER_BYTES + TAG_BYTES:
            return -VLAN_TRUNCATED
        vid = ((high >> 48) & 0x0F) << 8 | (high >> 56) & 0xFF
        if vid != 0 and vid != load64(work + job.VLAN):
            return -VLAN_MISMATCH
    source = (load64(one + job.SOURCE) >> macs.MAC_SHIFT) & _ADDRESS
    return -SOURCE_INVALID if source & 1 or source == 0 else 0


@compiled(i64(i64, i64, i64))
def destination(work: Word, one: Word, record: Word) -> Word:
    """Returns where a frame to an address goes by its `record` in the table: slot of a port, FLOOD, or a reason."""
    target = load64(one + job.LOW) & _ADDRESS
    if target & ((1 << 40) - 1) == _LINK_LOCAL and 0 < target >> 40 < 16:
        return -LINK_LOCAL
    if target & 1 or not macs.alive(load64(work + job.HEAD), record, load64(work + job.NOW)):
        return FLOOD
    slot = macs.port_of(record)
    if slot == load64(work + job.SLOT):
        return -SAME_PORT
    row = load64(work + job.PORTS) + (slot << job.ROW_SHIFT)
    state = load64(row + job.STATE)
    if not state & job.UP or load64(row + job.ROW_VLAN) != load64(work + job.VLAN):
        return -DESTINATION_DOWN
    return slot if state & job.PLAIN else NOT_HERE


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
    slot, length, target = 0, load64(one + job.LENGTH), load64(one + job.TARGET)
    if length >= HEADER_BYTES and length <= longest and (load64(one + job.HIGH) >> 32) & 0xFFFF != TPID:
        source = load64(one + job.SOURCE)
        source_entry = source | (entered & macs.UPPER_MASK) << macs.UPPER_SHIFT
        origin = macs.search(table, mask, source, load64(one + job.SOURCE_HASH))
        known = macs.search(table, mask, target, load64(one + job.TARGET_HASH))
        time = macs.seen(origin)
        lives = load64(origin) == source_entry and time > oldest and time != macs.ALWAYS
        reached = load64(known) != 0 and macs.seen(known) > oldest
        if lives and reached and load64(origin + 8) & macs.PORT_MASK == fresh & macs.PORT_MASK and target & GROUP == 0:
            slot = macs.port_of(known)
            row = ports + (slot << job.ROW_SHIFT)
            there = load64(row + job.STATE) & _BOTH == _BOTH and load64(row + job.ROW_VLAN) == vlan
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
    head, now_ns = load64(work + job.HEAD), load64(work + job.NOW)
    target, entered = load64(one + job.TARGET), load64(work + job.SLOT)
    origin = macs.find_at(head, load64(one + job.SOURCE), load64(one + job.SOURCE_HASH))
    known = macs.find_at(head, target, load64(one + job.TARGET_HASH))
    if load64(one + job.TAGGED) or target & GROUP or not load64(work + job.PRIVATE):
        return NOT_HERE
    if not macs.alive(head, origin, now_ns) or not macs.alive(head, known, now_ns):
        return NOT_HERE
    slot = macs.port_of(known)
    if macs.port_of(origin) != entered or slot == entered:
        return NOT_HERE
    if macs.seen(origin) == macs.ALWAYS or macs.seen(known) == macs.ALWAYS:
        return NOT_HERE
    row = load64(work + job.PORTS) + (slot << job.ROW_SHIFT)
    if load64(row + job.STATE) & _BOTH != _BOTH or load64(row + job.ROW_VLAN) != load64(port + job.ROW_VLAN):
        return NOT_HERE
    if load64(row + job.RING) or not load64(row + job.WIRE):
        return NOT_HERE
    store64(origin + 8, macs.stamp(entered, now_ns - load64(head + macs.BASE)))
    return slot


@compiled(i64(i64, i64, i64))
def decide(work: Word, one: Word, index: Word) -> Word:
    """Decides about a frame and learns from it.

    Returns the slot of a port, FLOOD, a negative reason, NOT_HERE or NO_ROOM (of the table); nothing is noted for the
    last two.
    """
    if load64(one + job.LENGTH) >= job.LADEN:
        return NOT_HERE
    refused = refusal(work, one)
    if refused < 0:
        return refused
    head, now_ns = load64(work + job.HEAD), load64(work + job.NOW)
    record = macs.find_at(head, load64(one + job.TARGET), load64(one + job.TARGET_HASH))
    found = destination(work, one, record)
    port = load64(work + job.PORTS) + (load64(work + job.SLOT) << job.ROW_SHIFT)
    if found == NOT_HERE or (found == FLOOD and not load64(port + job.STATE) & job.FLOODS):
        return NOT_HERE
    source = load64(one + job.SOURCE)
    source_record = macs.find_at(head, source, load64(one + job.SOURCE_HASH))
    learned = macs.learn_at(head, source_record, source, load64(work + job.SLOT), now_ns)
    if learned == macs.GROW:
        return NO_ROOM
    store64(work + job.LAST_LEARNED, learned)
    if learned != macs.REFRESHED:
        store64(work + job.NOTED, 1)
        tally(work + job.LEARNED + 16 * learned, index)
        if learned == macs.MOVED and load64(work + job.LEARNED + 16 * learned) == 1:
            store64(work + job.MOVED_FROM, load64(head + macs.MOVED_FROM))
        record = macs.find_at(head, load64(one + job.TARGET), load64(one + job.TARGET_HASH))
        found = destination(work, one, record)
    if found == FLOOD and load64(port + job.FLOOD_SIZE) < 2:
        return -NO_DESTINATION
    return found
