"""A burst through the pipeline, compiled: look ahead, decide, copy, and remember what Python has to tell."""

from __future__ import annotations

from lamina_vswitch.plane.compiled import layout, mac_table, pipeline, rings, wires
from lamina_vswitch.plane.compiled.intrinsics import Word, compiled, i64, inlined, load64, prefetch, store64, void


@compiled(void(i64, i64))
def touch(work: Word, slot: Word) -> None:
    """Notes that there is something to end at a port when the run ends."""
    touches = load64(work + layout.TOUCHES)
    store64(load64(work + layout.TOUCHED) + (touches << layout.REPORT_SHIFT), slot)
    store64(work + layout.TOUCHES, touches + 1)


@compiled(void(i64, i64, i64, i64, i64))
def hand_out(work: Word, row: Word, slot: Word, one: Word, index: Word) -> None:
    """Puts a frame for a port without a ring into the list of its wire, or into the outbox, which has room.

    A frame leaves untagged; what has to be changed, and what others may change meanwhile, is copied by Python.
    """
    wire = load64(row + layout.WIRE)
    if wire and load64(work + layout.PRIVATE) and not load64(one + layout.TAGGED):
        if not load64(row + layout.USED):
            touch(work, slot)
            store64(row + layout.USED, 1)
        place = load64(work + layout.BURST) + (index << layout.PLACE_SHIFT)
        wires.post(wire, load64(place), load64(place + 8))
        return
    posted = load64(work + layout.POSTED)
    entry = load64(work + layout.OUTBOX) + (posted << layout.OUTBOX_SHIFT)
    store64(entry, slot)
    store64(entry + 8, index)
    store64(entry + 16, load64(one + layout.LOW))
    store64(entry + 24, load64(one + layout.HIGH))
    store64(work + layout.POSTED, posted + 1)


@inlined(void(i64, i64, i64, i64))
def deliver(work: Word, slot: Word, one: Word, index: Word) -> None:
    """Puts a frame into a port's ring, or hands it out otherwise."""
    row = load64(work + layout.PORTS) + (slot << layout.ROW_SHIFT)
    if load64(row + layout.RING) == 0:
        hand_out(work, row, slot, one, index)
        return
    if not load64(row + layout.USED):
        touch(work, slot)
        rings.open_row(row)
    if load64(row + layout.NEXT) == load64(row + layout.END):
        pipeline.tally(row + layout.FULL, index)
    else:
        rings.put(row, one, load64(load64(work + layout.BURST) + (index << layout.PLACE_SHIFT)))


@compiled(void(i64, i64, i64, i64))
def flood(work: Word, port: Word, one: Word, index: Word) -> None:
    """Delivers a frame to every other port of its VLAN."""
    slots, own = load64(port + layout.FLOOD), load64(work + layout.SLOT)
    for at in range(load64(port + layout.FLOOD_SIZE)):
        slot = load64(slots + 8 * at)
        if slot != own:
            deliver(work, slot, one, index)
    store64(work + layout.FLOODED, load64(work + layout.FLOODED) + 1)


@compiled(void(i64))
def finish(work: Word) -> None:
    """Publishes what was written into rings, sends what is for wires, keeps the reports that Python has to hear of."""
    reports, kept = load64(work + layout.TOUCHED), 0
    for at in range(load64(work + layout.TOUCHES)):
        slot = load64(reports + (at << layout.REPORT_SHIFT))
        report = reports + (kept << layout.REPORT_SHIFT)
        store64(report, slot)
        row = load64(work + layout.PORTS) + (slot << layout.ROW_SHIFT)
        kept += rings.close_row(row, report) if load64(row + layout.RING) else wires.close_row(row, report)
    store64(work + layout.TOUCHES, kept)


@compiled(i64(i64, i64, i64, i64))
def judged(work: Word, port: Word, one: Word, index: Word) -> Word:
    """Decides about a frame that is not between known stations, and does what is decided; returns how the run goes on.

    That is DONE for the next frame, or what ends or pauses the run.
    """
    if load64(one + layout.LENGTH) & layout.CARRIED:
        found = pipeline.carried_route(work, one, port)
    else:
        found = pipeline.decide(work, one, index)
    if found == pipeline.NOT_HERE:
        return layout.SLOW
    if found == pipeline.NO_ROOM:
        return layout.LARGER_TABLE
    if found == pipeline.FLOOD:
        flood(work, port, one, index)
    elif found > 0:
        deliver(work, found, one, index)
    else:
        pair = work + layout.DROPS - 16 * found
        store64(work + layout.NOTED, 1)
        pipeline.tally(pair, index)
        if load64(pair) == 1:
            return layout.FIRST_DROP
    return layout.DONE


@compiled(i64(i64))
def run(work: Word) -> Word:
    """Switches the frames of a burst from FIRST on; returns how that ended, with FIRST at the next frame."""
    count, index, looked = load64(work + layout.COUNT), load64(work + layout.FIRST), load64(work + layout.LOOKED)
    ports, slot, head = load64(work + layout.PORTS), load64(work + layout.SLOT), load64(work + layout.HEAD)
    table, mask, secret = load64(head + mac_table.TABLE), load64(head + mac_table.MASK), load64(head + mac_table.SECRET)
    now = load64(work + layout.NOW) - load64(head + mac_table.BASE)
    vlan, looks = load64(work + layout.VLAN), load64(work + layout.LOOKS)
    oldest, fresh = now - load64(head + mac_table.AGEING), mac_table.stamp(slot, now)
    longest = load64(work + layout.MTU) + pipeline.HEADER_BYTES
    port, burst = ports + (slot << layout.ROW_SHIFT), load64(work + layout.BURST)
    most = load64(work + layout.OUTBOX_SIZE) - load64(port + layout.FLOOD_SIZE)
    size, ended = load64(work + layout.RECEIVED_BYTES), layout.DONE
    while index < count and ended == layout.DONE:
        while looked < count and looked <= index + layout.AHEAD:
            ahead = looks + ((looked & (layout.LOOKS_KEPT - 1)) << layout.LOOK_SHIFT)
            pipeline.look(burst + (looked << layout.PLACE_SHIFT), ahead, table, mask, secret, vlan | mac_table.OCCUPIED)
            prefetch(load64(burst + (min(looked + layout.FRAMES_AHEAD, count - 1) << layout.PLACE_SHIFT)))
            looked += 1
        one = looks + ((index & (layout.LOOKS_KEPT - 1)) << layout.LOOK_SHIFT)
        known = pipeline.known_route(one, table, mask, slot, vlan, oldest, longest, ports, fresh)
        if load64(work + layout.POSTED) > most:
            ended = layout.OUTBOX_FULL
        elif known != 0:
            deliver(work, known, one, index)
        else:
            ended = judged(work, port, one, index)
        if ended == layout.DONE or ended == layout.FIRST_DROP:
            size += load64(one + layout.LENGTH) & (layout.LADEN - 1)
            index += 1
    if ended <= layout.OUTBOX_FULL:
        finish(work)
    store64(work + layout.FIRST, index)
    store64(work + layout.LOOKED, looked)
    store64(work + layout.RECEIVED_BYTES, size)
    return ended
