"""Decisions where tags and uplinks count, compiled: what `domain.decision.decide` decides at trunks and beside them.

Everything that follows from ports, policies and teams is in tables that Python made of the domain's own functions, by
VLAN (`vlans.py`). What is left for a frame is looking up, learning, and the choice of an uplink. As in `pipeline.py`,
what is not for the plane is NOT_HERE, before anything about the frame was noted.
"""

from __future__ import annotations

from lamina_vswitch.plane.compiled import layout, mac_table, tags
from lamina_vswitch.plane.compiled.intrinsics import Word, compiled, i64, inlined, load64, store64
from lamina_vswitch.plane.compiled.pipeline import (
    DESTINATION_DOWN,
    GROUP,
    HEADER_BYTES,
    LINK_LOCAL,
    NO_DESTINATION,
    NO_ROOM,
    NOT_HERE,
    OVERSIZE,
    RUNT,
    SAME_PORT,
    SOURCE_INVALID,
    TAG_BYTES,
    TPID,
    VLAN_MISMATCH,
    VLAN_TRUNCATED,
    tally,
)
from lamina_vswitch.plane.compiled.tags import TPID_PROVIDER
from lamina_vswitch.plane.compiled.teaming import source_of, way_out

TEAMING_STANDBY = 24
"""A reason that is decided here alone; a number of `domain.drop.DropReason`."""
FLOOD, NO_ENTRY, OUTBOX_FULL = 0, -102, -103
"""Beside what `pipeline.decide` returns: the port's entry has to be made; the outbox has no room for this frame."""
_VID, _ADDRESS, _PREFIX, _LINK_LOCAL = 0x0FFF, (1 << 48) - 1, (1 << 40) - 1, 0x0000C28001


@compiled(i64(i64, i64))
def refusal(work: Word, one: Word) -> Word:
    """Returns why the head of a frame is none, as a negative reason; 0 when it is one. At a trunk that is NOT_HERE."""
    length, found = load64(one + layout.LENGTH), 0
    if length < HEADER_BYTES:
        found = -RUNT
    elif length > tags.longest(one, load64(work + layout.MTU)):
        found = -OVERSIZE
    elif tags.kind_of(one) == tags.NONE:
        outer = (load64(one + layout.HIGH) >> 32) & 0xFFFF
        trunk = load64(work + layout.KIND) & layout.TRUNK_PORT
        if outer == TPID or (trunk != 0 and outer == TPID_PROVIDER):
            found = -VLAN_TRUNCATED
    if found != 0 and load64(work + layout.KIND) & layout.TRUNK_PORT:
        return NOT_HERE  # in which VLAN it counts, the reference knows
    return found


@compiled(i64(i64, i64))
def key_of(work: Word, one: Word) -> Word:
    """Returns the key of the entry by which a frame comes in; an access port has but one."""
    if load64(work + layout.KIND) & layout.TRUNK_PORT == 0:
        return 0
    return tags.vlan_of(one) | (layout.PROVIDER_KEY if tags.kind_of(one) >= tags.PROVIDER else 0)


@inlined(i64(i64, i64))
def entry_of(work: Word, one: Word) -> Word:
    """Returns the entry of the port for the VLAN of a frame, 0 when there is none yet."""
    return load64(load64(work + layout.ENTRIES) + 8 * key_of(work, one))


@compiled(i64(i64))
def is_link_local(target: Word) -> Word:
    """Returns 1 when an address, a little-endian number, stays on its link."""
    return 1 if target & _PREFIX == _LINK_LOCAL and 0 < target >> 40 < 16 else 0


@compiled(i64(i64, i64, i64, i64))
def destination(work: Word, entry: Word, one: Word, record: Word) -> Word:
    """Returns where a frame goes by the `record` of its destination: FLOOD, what becomes of it there, or a reason.

    Which uplink it takes, `decide` has found out.
    """
    vlan, target = load64(entry + layout.ENTRY_VLAN), load64(one + layout.LOW) & _ADDRESS
    ports, kind, own = load64(work + layout.PORTS), load64(work + layout.KIND), load64(work + layout.SLOT)
    if is_link_local(target):
        return -LINK_LOCAL
    if target & 1 or not mac_table.alive(load64(work + layout.HEAD), record, load64(work + layout.NOW)):
        way = load64(work + layout.WAY)
        if not load64(vlan + layout.FLOODS_HERE) or (way != 0 and load64(vlan + layout.TARGETS + 8 * way) <= 0):
            return NOT_HERE
        heard = load64(vlan + layout.HEARERS) - (0 if kind & layout.UPLINK_PORT else 1)
        return FLOOD if heard > 0 or way != 0 else -NO_DESTINATION
    slot = mac_table.port_of(record)
    if load64(ports + (slot << layout.ROW_SHIFT) + layout.STATE) & layout.UPLINK:
        if kind & layout.UPLINK_PORT:
            return -SAME_PORT
        if mac_table.seen(record) != mac_table.ALWAYS:
            slot = load64(work + layout.WAY)
            if slot == 0:
                return -DESTINATION_DOWN
    if slot == own:
        return -SAME_PORT
    found = load64(vlan + layout.TARGETS + 8 * slot)
    return found if found != 0 else NOT_HERE


@compiled(i64(i64, i64, i64, i64))
def place(work: Word, entry: Word, one: Word, record: Word) -> Word:
    """Returns where the source of a frame at an uplink is learned by its `record`: NOT_HERE, when it is a guest's."""
    own = load64(work + layout.SLOT)
    if not mac_table.alive(load64(work + layout.HEAD), record, load64(work + layout.NOW)):
        return own
    known = mac_table.port_of(record)
    state = load64(load64(work + layout.PORTS) + (known << layout.ROW_SHIFT) + layout.STATE)
    if not state & layout.UPLINK:
        return NOT_HERE
    return own if mac_table.seen(record) == mac_table.ALWAYS or not state & layout.UP else known


@compiled(i64(i64, i64, i64, i64))
def stands_by(work: Word, vlan: Word, one: Word, record: Word) -> Word:
    """Returns 1 when a frame of a stranger at an uplink counts at another one; `record` is its destination's."""
    target = load64(one + layout.LOW) & _ADDRESS
    if not load64(vlan + layout.STANDBY) or is_link_local(target):
        return 0
    return 1 if target & 1 or not mac_table.alive(load64(work + layout.HEAD), record, load64(work + layout.NOW)) else 0


@compiled(i64(i64, i64, i64, i64))
def admission(work: Word, entry: Word, one: Word, room: Word) -> Word:
    """Returns 0 when a frame with a head comes in, else a negative reason or what else is decided."""
    vlan, tag = load64(entry + layout.ENTRY_VLAN), load64(one + layout.TAGGED)
    if vlan == 0:
        return -VLAN_MISMATCH
    if tag & tags.KIND_MASK == tags.PROVIDER_PRIORITY:
        return NOT_HERE
    is_customer = load64(work + layout.KIND) & layout.TRUNK_PORT == 0 and tag & tags.KIND_MASK == tags.CUSTOMER
    if is_customer and tags.vlan_of(one) != load64(work + layout.VLAN):
        return -VLAN_MISMATCH
    source = source_of(one)
    if source & 1 or source == 0:
        return -SOURCE_INVALID
    if not load64(vlan + layout.HERE) or (tag & tags.INNER and load64(vlan + layout.EXPOSES)):
        return NOT_HERE
    return OUTBOX_FULL if load64(vlan + layout.HEARERS) + 1 > room else 0


@compiled(i64(i64, i64, i64, i64))
def _up(work: Word, entry: Word, one: Word, index: Word) -> Word:
    """Returns what becomes of a frame at the uplink that it takes; 0 when there is none, or it came in at one."""
    if load64(work + layout.KIND) & layout.UPLINK_PORT:
        return 0
    way = way_out(work, entry, one, load64(load64(work + layout.BURST) + (index << layout.PLACE_SHIFT)))
    return load64(load64(entry + layout.ENTRY_VLAN) + layout.TARGETS + 8 * way) if way != 0 else 0


@compiled(i64(i64, i64, i64, i64, i64))
def decide(work: Word, entry: Word, one: Word, index: Word, frame: Word) -> Word:
    """Decides about a frame that comes in by an `entry`, and learns from it.

    Returns FLOOD, what becomes of it at a port, a negative reason, NOT_HERE or NO_ROOM; nothing is noted for the last
    two.
    """
    head, now_ns, source = load64(work + layout.HEAD), load64(work + layout.NOW), load64(one + layout.SOURCE)
    record = mac_table.find_at(head, load64(one + layout.TARGET), load64(one + layout.TARGET_HASH))
    source_record = mac_table.find_at(head, source, load64(one + layout.SOURCE_HASH))
    where = load64(work + layout.SLOT)
    if load64(work + layout.KIND) & layout.UPLINK_PORT:
        where = place(work, entry, one, source_record)
        if where == NOT_HERE:
            return NOT_HERE
        if stands_by(work, load64(entry + layout.ENTRY_VLAN), one, record):
            return -TEAMING_STANDBY
    # Once for all: who sent the frame may rewrite it, and it would take another uplink the next time.
    store64(work + layout.WAY, way_out(work, entry, one, frame))
    found = destination(work, entry, one, record)
    if found == NOT_HERE:
        return NOT_HERE
    learned = mac_table.learn_at(head, source_record, source, where, now_ns)
    if learned == mac_table.GROW:
        return NO_ROOM
    store64(work + layout.LAST_LEARNED, learned)
    if learned != mac_table.REFRESHED:
        store64(work + layout.NOTED, 1)
        tally(work + layout.LEARNED + 16 * learned, index)
        if learned == mac_table.MOVED and load64(work + layout.LEARNED + 16 * learned) == 1:
            store64(work + layout.MOVED_FROM, load64(head + mac_table.MOVED_FROM))
            store64(work + layout.MOVED_VLAN, tags.vlan_of(one))
        record = mac_table.find_at(head, load64(one + layout.TARGET), load64(one + layout.TARGET_HASH))
        found = destination(work, entry, one, record)
    return found


@inlined(i64(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64))
def known_route(
    work: Word,
    one: Word,
    table: Word,
    mask: Word,
    entered: Word,
    native: Word,
    trunk: Word,
    oldest: Word,
    longest: Word,
    fresh: Word,
    index: Word,
) -> Word:
    """Returns what becomes of a frame between two stations about which nothing is news, or 0. The source is refreshed.

    As `pipeline.known_route`, in the VLAN by which the frame came in. One that may be too long, or has a tag within
    which a native VLAN would lay bare, is none of these. A station behind uplinks is reached by that of the sender.
    """
    found, tag, length = 0, load64(one + layout.TAGGED), load64(one + layout.LENGTH)
    kind = tag & tags.KIND_MASK
    most = longest if kind == tags.NONE else longest + TAG_BYTES
    if length >= HEADER_BYTES + TAG_BYTES and length <= most and kind != tags.PROVIDER_PRIORITY:
        source, target = load64(one + layout.SOURCE), load64(one + layout.TARGET)
        number = source & _VID
        key = (number | (layout.PROVIDER_KEY if kind == tags.PROVIDER else 0)) if trunk != 0 else 0
        entry = load64(load64(work + layout.ENTRIES) + 8 * key)
        vlan = load64(entry + layout.ENTRY_VLAN) if entry != 0 and (trunk != 0 or number == native) else 0
        if vlan != 0 and load64(vlan + layout.HERE) and (tag & tags.INNER == 0 or not load64(vlan + layout.EXPOSES)):
            origin = mac_table.search(table, mask, source, load64(one + layout.SOURCE_HASH))
            known = mac_table.search(table, mask, target, load64(one + layout.TARGET_HASH))
            time = mac_table.seen(origin)
            own = load64(origin) == source | (entered & mac_table.UPPER_MASK) << mac_table.UPPER_SHIFT
            lives = own and time > oldest and time != mac_table.ALWAYS
            reached = load64(known) != 0 and mac_table.seen(known) > oldest
            same = load64(origin + 8) & mac_table.PORT_MASK == fresh & mac_table.PORT_MASK
            if lives and reached and same and target & GROUP == 0:
                slot = mac_table.port_of(known)
                there = load64(vlan + layout.TARGETS + 8 * slot)
                if there > 0 and there & layout.UPLINK_TARGET:
                    there = _up(work, entry, one, index) if mac_table.seen(known) != mac_table.ALWAYS else 0
                    slot = there & 0xFFFFFFFF
                if slot != entered and there > 0:
                    found = there
                    store64(origin + 8, fresh)
    return found
