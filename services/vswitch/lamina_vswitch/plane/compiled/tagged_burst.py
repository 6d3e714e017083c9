"""A burst at a port where tags or uplinks count, compiled: as `burst.py`, with a form for each frame that leaves."""

from __future__ import annotations

from lamina_vswitch.domain.port import ring_layout as layout
from lamina_vswitch.plane.compiled import layout as job
from lamina_vswitch.plane.compiled import mac_table, pipeline, rings, tagged_pipeline, tags, wires
from lamina_vswitch.plane.compiled.burst import finish, touch
from lamina_vswitch.plane.compiled.intrinsics import Word, compiled, i64, inlined, load64, prefetch, store64, void


@compiled(void(i64, i64, i64, i64))
def post(work: Word, above: Word, one: Word, index: Word) -> None:
    """Puts a frame into the outbox, which has room; `above` is the slot, and what else Python has to know."""
    posted = load64(work + job.POSTED)
    entry = load64(work + job.OUTBOX) + (posted << job.OUTBOX_SHIFT)
    tag = 1 if tags.kind_of(one) != tags.NONE else 0
    store64(entry, above | tags.vlan_of(one) << job.VLAN_SHIFT | tag << job.TAG_SHIFT)
    store64(entry + 8, index)
    store64(entry + 16, load64(one + job.LOW))
    store64(entry + 24, load64(one + job.HIGH))
    store64(work + job.POSTED, posted + 1)


@compiled(void(i64, i64, i64, i64, i64))
def hand_out(work: Word, row: Word, target: Word, one: Word, index: Word) -> None:
    """Puts a frame for a port without a ring into the list of its wire, or into the outbox."""
    slot, wire = target & 0xFFFFFFFF, load64(row + job.WIRE)
    form = (target >> (job.TARGET_FORM_SHIFT + job.FORM_BITS * tags.kind_of(one))) & 15
    if wire and load64(work + job.PRIVATE) and form == job.AS_IT_CAME and target & job.TRUNK_TARGET == 0:
        if not load64(row + job.USED):
            touch(work, slot)
            store64(row + job.USED, 1)
        place = load64(work + job.BURST) + (index << job.PLACE_SHIFT)
        wires.post(wire, load64(place), load64(place + 8))
        return
    post(work, slot | form << job.FORM_SHIFT, one, index)


@compiled(void(i64, i64, i64, i64, i64))
def lose(work: Word, row: Word, target: Word, one: Word, index: Word) -> None:
    """Notes that a frame did not fit into a port's ring."""
    dropped = load64(row + job.RING) + layout.DROPPED
    store64(dropped, load64(dropped) + 1)
    form = (target >> (job.TARGET_FORM_SHIFT + job.FORM_BITS * tags.kind_of(one))) & 15
    post(work, target & 0xFFFFFFFF | form << job.FORM_SHIFT | 1 << job.LOST_SHIFT, one, index)


@inlined(void(i64, i64, i64, i64))
def deliver_near(work: Word, target: Word, one: Word, index: Word) -> None:
    """Puts a frame into a port's ring in its form, or hands it out otherwise; `target` is what becomes of it there."""
    slot = target & 0xFFFFFFFF
    row = load64(work + job.PORTS) + (slot << job.ROW_SHIFT)
    if load64(row + job.RING) == 0:
        hand_out(work, row, target, one, index)
    else:
        if not load64(row + job.USED):
            touch(work, slot)
            rings.open_row(row)
        if load64(row + job.NEXT) == load64(row + job.END):
            lose(work, row, target, one, index)
        else:
            form = (target >> (job.TARGET_FORM_SHIFT + job.FORM_BITS * tags.kind_of(one))) & 15
            size = tags.put(row, one, load64(load64(work + job.BURST) + (index << job.PLACE_SHIFT)), form)
            if target & job.TRUNK_TARGET:
                counts = load64(work + job.COUNTS) + (tags.vlan_of(one) << job.COUNTS_SHIFT)
                tags.count(counts + job.VLAN_SENT, size)


@compiled(void(i64, i64, i64, i64))
def deliver(work: Word, target: Word, one: Word, index: Word) -> None:
    """Does what `deliver_near` does: its text is copied into the run alone."""
    deliver_near(work, target, one, index)


@compiled(void(i64, i64, i64, i64))
def flood(work: Word, entry: Word, one: Word, index: Word) -> None:
    """Delivers a frame to every other port that hears floods of its VLAN, and to the uplink that it takes."""
    vlan, own = load64(entry + job.ENTRY_VLAN), load64(work + job.SLOT)
    targets = load64(vlan + job.HEARD_BY)
    for at in range(load64(vlan + job.HEARERS)):
        target = load64(targets + 8 * at)
        if target & 0xFFFFFFFF != own:
            deliver(work, target, one, index)
    way = load64(work + job.WAY)
    if way != 0:
        deliver(work, load64(vlan + job.TARGETS + 8 * way), one, index)
    store64(work + job.FLOODED, load64(work + job.FLOODED) + 1)
    if load64(work + job.KIND) & job.TRUNK_PORT:
        flooded = load64(work + job.COUNTS) + (tags.vlan_of(one) << job.COUNTS_SHIFT) + job.VLAN_FLOODED
        store64(flooded, load64(flooded) + 1)


@compiled(i64(i64, i64, i64, i64))
def dropped(work: Word, one: Word, reason: Word, index: Word) -> Word:
    """Notes a frame that is dropped where it entered, at a trunk with its VLAN; returns how the run goes on."""
    pair = work + job.DROPS + 16 * reason
    store64(work + job.NOTED, 1)
    pipeline.tally(pair, index)
    if load64(work + job.KIND) & job.TRUNK_PORT:
        post(work, reason << job.REASON_SHIFT | 1 << job.LOST_SHIFT, one, index)
    return job.FIRST_DROP if load64(pair) == 1 else job.DONE


@compiled(i64(i64, i64, i64))
def found_out(work: Word, one: Word, index: Word) -> Word:
    """Returns what is decided about a frame; its port's entry is made by then, or that is NO_ENTRY."""
    if load64(one + job.LENGTH) >= job.LADEN:
        return pipeline.NOT_HERE
    found = tagged_pipeline.refusal(work, one)
    if found != 0:
        return found
    entry, room = tagged_pipeline.entry_of(work, one), load64(work + job.OUTBOX_SIZE) - load64(work + job.POSTED)
    if entry == 0:
        return tagged_pipeline.NO_ENTRY
    found = tagged_pipeline.admission(work, entry, one, room)
    if found != 0:
        return found
    frame = load64(load64(work + job.BURST) + (index << job.PLACE_SHIFT))
    return tagged_pipeline.decide(work, entry, one, index, frame)


@compiled(void(i64, i64, i64))
def count_received(work: Word, one: Word, found: Word) -> None:
    """Counts a frame that entered at a trunk for its VLAN; one whose VLAN is not carried there, for the native one."""
    vlan = load64(work + job.VLAN) if found == -pipeline.VLAN_MISMATCH else tags.vlan_of(one)
    counts = load64(work + job.COUNTS) + (vlan << job.COUNTS_SHIFT)
    tags.count(counts + job.VLAN_RECEIVED, load64(one + job.LENGTH))


@compiled(i64(i64, i64, i64))
def judged(work: Word, one: Word, index: Word) -> Word:
    """Decides about a frame and does what is decided; returns how the run goes on."""
    found = found_out(work, one, index)
    if found <= pipeline.NOT_HERE:
        if found == tagged_pipeline.NO_ENTRY:
            store64(work + job.WANTED, tagged_pipeline.key_of(work, one))
            return job.NEW_KEY
        if found == pipeline.NO_ROOM:
            return job.LARGER_TABLE
        return job.OUTBOX_FULL if found == tagged_pipeline.OUTBOX_FULL else job.SLOW
    if load64(work + job.KIND) & job.TRUNK_PORT:
        count_received(work, one, found)
    if found < 0:
        return dropped(work, one, -found, index)
    if found == tagged_pipeline.FLOOD:
        flood(work, tagged_pipeline.entry_of(work, one), one, index)
    else:
        deliver(work, found, one, index)
    return job.DONE


@compiled(i64(i64))
def run(work: Word) -> Word:
    """Switches the frames of a burst from FIRST on; returns how that ended, with FIRST at the next frame."""
    count, index, looked = load64(work + job.COUNT), load64(work + job.FIRST), load64(work + job.LOOKED)
    head, burst, looks = load64(work + job.HEAD), load64(work + job.BURST), load64(work + job.LOOKS)
    table, mask, secret = load64(head + mac_table.TABLE), load64(head + mac_table.MASK), load64(head + mac_table.SECRET)
    native, trunk = load64(work + job.VLAN), load64(work + job.KIND) & job.TRUNK_PORT
    now, slot = load64(work + job.NOW) - load64(head + mac_table.BASE), load64(work + job.SLOT)
    oldest, fresh = now - load64(head + mac_table.AGEING), mac_table.stamp(slot, now)
    longest, counts = load64(work + job.MTU) + pipeline.HEADER_BYTES, load64(work + job.COUNTS)
    size, ended = load64(work + job.RECEIVED_BYTES), job.DONE
    while index < count and ended == job.DONE:
        while looked < count and looked <= index + job.AHEAD:
            ahead = looks + ((looked & (job.LOOKS_KEPT - 1)) << job.LOOK_SHIFT)
            tags.look(burst + (looked << job.PLACE_SHIFT), ahead, table, mask, secret, native, trunk)
            prefetch(load64(burst + (min(looked + job.FRAMES_AHEAD, count - 1) << job.PLACE_SHIFT)))
            looked += 1
        one = looks + ((index & (job.LOOKS_KEPT - 1)) << job.LOOK_SHIFT)
        known = tagged_pipeline.known_route(work, one, table, mask, slot, native, trunk, oldest, longest, fresh, index)
        if load64(work + job.POSTED) >= load64(work + job.OUTBOX_SIZE):
            ended = job.OUTBOX_FULL
        elif known != 0:
            if trunk != 0:
                tags.count(
                    counts + (tags.vlan_of(one) << job.COUNTS_SHIFT) + job.VLAN_RECEIVED, load64(one + job.LENGTH)
                )
            deliver_near(work, known, one, index)
        else:
            ended = judged(work, one, index)
        if ended == job.DONE or ended == job.FIRST_DROP:
            size += load64(one + job.LENGTH)
            index += 1
    if ended <= job.OUTBOX_FULL:
        finish(work)
    store64(work + job.FIRST, index)
    store64(work + job.LOOKED, looked)
    store64(work + job.RECEIVED_BYTES, size)
    return ended
