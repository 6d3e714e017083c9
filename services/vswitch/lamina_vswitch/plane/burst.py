"""A burst through the pipeline, compiled: look ahead, decide, copy, and remember what Python has to tell."""

from __future__ import annotations

from lamina_vswitch.plane import job, macs, pipeline, rings, wires
from lamina_vswitch.plane.native import Word, compiled, i64, inlined, load64, prefetch, store64, void


@compiled(void(i64, i64))
def touch(work: Word, slot: Word) -> None:
    """Notes that there is something to end at a port when the run ends."""
    touches = load64(work + job.TOUCHES)
    store64(load64(work + job.TOUCHED) + (touches << job.REPORT_SHIFT), slot)
    store64(work + job.TOUCHES, touches + 1)


@compiled(void(i64, i64, i64, i64, i64))
def hand_out(work: Word, row: Word, slot: Word, one: Word, index: Word) -> None:
    """Puts a frame for a port without a ring into the list of its wire, or into the outbox, which has room.

    A frame leaves untagged; what has to be changed, and what others may change meanwhile, is copied by Python.
    """
    wire = load64(row + job.WIRE)
    if wire and load64(work + job.PRIVATE) and not load64(one + job.TAGGED):
        if not load64(row + job.USED):
            touch(work, slot)
            store64(row + job.USED, 1)
        place = load64(work + job.BURST) + (index << job.PLACE_SHIFT)
        wires.post(wire, load64(place), load64(place + 8))
        return
    posted = load64(work + job.POSTED)
    entry = load64(work + job.OUTBOX) + (posted << job.OUTBOX_SHIFT)
    store64(entry, slot)
    store64(entry + 8, index)
    store64(entry + 16, load64(one + job.LOW))
    store64(entry + 24, load64(one + job.HIGH))
    store64(work + job.POSTED, posted + 1)


@inlined(void(i64, i64, i64, i64))
def deliver(work: Word, slot: Word, one: Word, index: Word) -> None:
    """Puts a frame into a port's ring, or hands it out otherwise."""
    row = load64(work + job.PORTS) + (slot << job.ROW_SHIFT)
    if load64(row + job.RING) == 0:
        hand_out(work, row, slot, one, index)
        return
    if not load64(row + job.USED):
        touch(work, slot)
        rings.open_row(row)
    if load64(row + job.NEXT) == load64(row + job.END):
        pipeline.tally(row + job.FULL, index)
    else:
        rings.put(row, one, load64(load64(work + job.BURST) + (index << job.PLACE_SHIFT)))


@compiled(void(i64, i64, i64, i64))
def flood(work: Word, port: Word, one: Word, index: Word) -> None:
    """Delivers a frame to every other port of its VLAN."""
    slots, own = load64(port + job.FLOOD), load64(work + job.SLOT)
    for at in range(load64(port + job.FLOOD_SIZE)):
        slot = load64(slots + 8 * at)
        if slot != own:
            deliver(work, slot, one, index)
    store64(work + job.FLOODED, load64(work + job.FLOODED) + 1)


@compiled(void(i64))
def finish(work: Word) -> None:
    """Publishes what was written into rings, sends what is for wires, keeps the reports that Python has to hear of."""
    reports, kept = load64(work + job.TOUCHED), 0
    for at in range(load64(work + job.TOUCHES)):
        slot = load64(reports + (at << job.REPORT_SHIFT))
        report = reports + (kept << job.REPORT_SHIFT)
        store64(report, slot)
        row = load64(work + job.PORTS) + (slot << job.ROW_SHIFT)
        kept += rings.close_row(row, report) if load64(row + job.RING) else wires.close_row(row, report)
    store64(work + job.TOUCHES, kept)


@compiled(i64(i64, i64, i64, i64))
def judged(work: Word, port: Word, one: Word, index: Word) -> Word:
    """Decides about a frame that is not between known stations, and does what is decided; returns how the run goes on.

    That is DONE for the next frame, or what ends or pauses the run.
    """
    if load64(one + job.LENGTH) & job.CARRIED:
        found = pipeline.carried_route(work, one, port)
    else:
        found = pipeline.decide(work, one, index)
    if found == pipeline.NOT_HERE:
        return job.SLOW
    if found == pipeline.NO_ROOM:
        return job.LARGER_TABLE
    if found == pipeline.FLOOD:
        flood(work, port, one, index)
    elif found > 0:
        deliver(work, found, one, index)
    else:
        pair = work + job.DROPS - 16 * found
        store64(work + job.NOTED, 1)
        pipeline.tally(pair, index)
        if load64(pair) == 1:
            return job.FIRST_DROP
    return job.DONE


@compiled(i64(i64))
def run(work: Word) -> Word:
    """Switches the frames of a burst from FIRST on; returns how that ended, with FIRST at the next frame."""
    count, index, looked = load64(work + job.COUNT), load64(work + job.FIRST), load64(work + job.LOOKED)
    ports, slot, head = load64(work + job.PORTS), load64(work + job.SLOT), load64(work + job.HEAD)
    table, mask, secret = load64(head + macs.TABLE), load64(head + macs.MASK), load64(head + macs.SECRET)
    now = load64(work + job.NOW) - load64(head + macs.BASE)
    vlan, looks = load64(work + job.VLAN), load64(work + job.LOOKS)
    oldest, fresh = now - load64(head + macs.AGEING), macs.stamp(slot, now)
    longest = load64(work + job.MTU) + pipeline.HEADER_BYTES
    port, burst = ports + (slot << job.ROW_SHIFT), load64(work + job.BURST)
    most = load64(work + job.OUTBOX_SIZE) - load64(port + job.FLOOD_SIZE)
    size, ended = load64(work + job.RECEIVED_BYTES), job.DONE
    while index < count and ended == job.DONE:
        while looked < count and looked <= index + job.AHEAD:
            ahead = looks + ((looked & (job.LOOKS_KEPT - 1)) << job.LOOK_SHIFT)
            pipeline.look(burst + (looked << job.PLACE_SHIFT), ahead, table, mask, secret, vlan | macs.OCCUPIED)
            prefetch(load64(burst + (min(looked + job.FRAMES_AHEAD, count - 1) << job.PLACE_SHIFT)))
            looked += 1
        one = looks + ((index & (job.LOOKS_KEPT - 1)) << job.LOOK_SHIFT)
        known = pipeline.known_route(one, table, mask, slot, vlan, oldest, longest, ports, fresh)
        if load64(work + job.POSTED) > most:
            ended = job.OUTBOX_FULL
        elif known != 0:
            deliver(work, known, one, index)
        else:
            ended = judged(work, port, one, index)
        if ended == job.DONE or ended == job.FIRST_DROP:
            size += load64(one + job.LENGTH) & (job.LADEN - 1)
            index += 1
    if ended <= job.OUTBOX_FULL:
        finish(work)
    store64(work + job.FIRST, index)
    store64(work + job.LOOKED, looked)
    store64(work + job.RECEIVED_BYTES, size)
    return ended
