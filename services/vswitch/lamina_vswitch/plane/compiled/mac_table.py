"""The MAC table of the plane: open addressing over (address, VLAN), and a heap for ageing; all compiled.

It is the table of `domain/switch/fdb.py` in flat memory, entry for entry: the same ageing in closed form, the same heap
whose times are never later than the true ones, the same limit. What is needed for each frame is in records of 16 bytes,
four of which share a cache line: the home of a record is a line, whose four keys are compared at once. Probing is
linear, and a removal moves later records back, so that there are no gravestones, and the free places of a line are its
last ones. The home of a record depends on a secret number: who sends frames cannot choose addresses that fall together.

    record   0  8  key: address (little-endian) · 4096 + VLAN, with bit 63 set; 0 when the place is free.
                   Bits 60 to 62 are no part of the key, but bits 14 to 16 of the port's slot
             8  8  bits 0 to 13 of the slot, and above them the time last seen, in nanoseconds from the table's BASE;
                   ALWAYS stands for the time of a static entry
    aside    0  8  serial number of its making
             8  8  time of its making, if it is static
    heap     0  8  a time at which the entry was alive
             8  8  serial number
            16  8  key

A time has 50 bits, 13 days: `FlatFdb` moves BASE before they end, and an entry lives for 11.6 days at most.
"""

from __future__ import annotations

from lamina_vswitch.plane.compiled.intrinsics import (
    Word,
    alike4,
    compiled,
    copy16,
    i64,
    inlined,
    load64,
    lowest,
    store64,
    void,
)

TABLE, MASK, SIZE, LIMIT, AGEING, SECRET, SERIAL, VERSION, HEAP, PLACES, MOVED_FROM, BEHIND = range(0, 96, 8)
"""Offsets in the head of a table, in bytes; MASK is the number of records less one, PLACES those used in the heap,
BEHIND the address of the number of dynamic entries of each port, by slot."""
BASE, ASIDE = 96, 104
"""Likewise: the time from which records count, and the address of what is known of each record aside."""
HEAD_WORDS = 14
RECORD_SHIFT, RECORD_WORDS, ASIDE_WORDS, PLACE_WORDS, PLACE_BYTES = 4, 2, 2, 3, 24
OCCUPIED, KEY_MASK = -1 << 63, ~(7 << 60)
MAC_SHIFT = 12
LINE_MASK = -4
"""What of a place is the first place of its cache line."""
EMPTIEST = 2
"""Places for each record, at least."""
TIME_SHIFT, PORT_MASK, UPPER_SHIFT, UPPER_MASK = 14, (1 << 14) - 1, 46, 7 << 14
ALWAYS = (1 << 49) - 1
"""The time of a static entry: later than any."""
NEW, REFRESHED, MOVED, FULL, STATIC, STATIC_ELSEWHERE, GROW = range(7)
"""What comes of learning, in the order of `domain.fdb.Learned`; GROW: make a larger table and learn again."""
_MIX, _STIR = -0x61C8864680B583EB, -0x4B47D0C5A1A6E6D5


@inlined(i64(i64, i64))
def stirred(key: Word, secret: Word) -> Word:
    """Returns the number whose low bits are the place of a key."""
    value = (key ^ secret) * _MIX
    value = (value ^ ((value >> 29) & 0x7FFFFFFFF)) * _STIR
    return (value >> 32) & 0xFFFFFFFF


@inlined(i64(i64, i64, i64, i64))
def search(table: Word, mask: Word, key: Word, hashed: Word) -> Word:
    """Returns the address of a key's record, or of the free place that ends the search; `hashed` is it, stirred.

    Which place of its home it is, is computed and not branched on.
    """
    at = hashed & mask & LINE_MASK
    line = table + (at << RECORD_SHIFT)
    found = alike4(line, key, KEY_MASK)
    while found == 0:
        found = alike4(line, 0, -1)
        if found == 0:
            at = (at + 4) & mask
            line = table + (at << RECORD_SHIFT)
            found = alike4(line, key, KEY_MASK)
    return line + (lowest(found) << 3)


@inlined(i64(i64))
def port_of(record: Word) -> Word:
    """Returns the slot of the port of the entry in a place."""
    return load64(record + 8) & PORT_MASK | (load64(record) >> UPPER_SHIFT) & UPPER_MASK


@inlined(i64(i64))
def seen(record: Word) -> Word:
    """Returns when the entry in a place was last seen, from BASE; ALWAYS when it is static."""
    return load64(record + 8) >> TIME_SHIFT


@inlined(i64(i64, i64))
def stamp(port: Word, time: Word) -> Word:
    """Returns the second half of the record of an entry of a port that was seen at a time, from BASE."""
    return time << TIME_SHIFT | port & PORT_MASK


@compiled(void(i64, i64, i64, i64))
def _write(record: Word, key: Word, port: Word, time: Word) -> None:
    """Writes the record of an entry."""
    store64(record, key | (port & UPPER_MASK) << UPPER_SHIFT)
    store64(record + 8, stamp(port, time))


@compiled(i64(i64, i64))
def aside(head: Word, record: Word) -> Word:
    """Returns the address of what is known aside of the entry in a place."""
    return load64(head + ASIDE) + (record - load64(head + TABLE))


@compiled(i64(i64, i64))
def mixed(head: Word, key: Word) -> Word:
    """Returns the number whose low bits are the place of a key in this table."""
    return stirred(key, load64(head + SECRET))


@compiled(i64(i64, i64, i64))
def find_at(head: Word, key: Word, hashed: Word) -> Word:
    """Returns what `search` does in this table."""
    return search(load64(head + TABLE), load64(head + MASK), key, hashed)


@compiled(i64(i64, i64))
def find(head: Word, key: Word) -> Word:
    """Returns the address of a key's record, or of a free place."""
    return find_at(head, key, mixed(head, key))


@compiled(i64(i64, i64, i64))
def alive(head: Word, record: Word, now_ns: Word) -> Word:
    """Returns 1 when there is an entry in a place and it has not aged, else 0."""
    if load64(record) == 0:
        return 0
    time = seen(record)
    return 1 if time == ALWAYS or now_ns - load64(head + BASE) - time < load64(head + AGEING) else 0


@compiled(void(i64, i64, i64))
def _count_behind(head: Word, port: Word, change: Word) -> None:
    """Counts dynamic entries behind a port."""
    number = load64(head + BEHIND) + 8 * port
    store64(number, load64(number) + change)


@compiled(void(i64, i64))
def remove(head: Word, record: Word) -> None:
    """Forgets the entry of a place, and moves those back that were found by passing it."""
    table, mask, apart = load64(head + TABLE), load64(head + MASK), load64(head + ASIDE)
    if seen(record) != ALWAYS:
        _count_behind(head, port_of(record), -1)
    hole = (record - table) >> RECORD_SHIFT
    at = (hole + 1) & mask
    key = load64(table + (at << RECORD_SHIFT)) & KEY_MASK
    while key != 0:
        if ((at - (mixed(head, key) & LINE_MASK)) & mask) >= ((at - hole) & mask):
            copy16(table + (hole << RECORD_SHIFT), table + (at << RECORD_SHIFT))
            copy16(apart + (hole << RECORD_SHIFT), apart + (at << RECORD_SHIFT))
            hole = at
        at = (at + 1) & mask
        key = load64(table + (at << RECORD_SHIFT)) & KEY_MASK
    store64(table + (hole << RECORD_SHIFT), 0)
    store64(head + SIZE, load64(head + SIZE) - 1)
    store64(head + VERSION, load64(head + VERSION) + 1)


@compiled(void(i64, i64, i64, i64))
def _set_place(place: Word, time: Word, serial: Word, key: Word) -> None:
    store64(place, time)
    store64(place + 8, serial)
    store64(place + 16, key)


@compiled(i64(i64, i64, i64))
def _before(place: Word, time: Word, serial: Word) -> Word:
    """Returns 1 when what is in a place of the heap comes before (time, serial)."""
    other = load64(place)
    return 1 if other < time or (other == time and load64(place + 8) < serial) else 0


@compiled(void(i64, i64, i64, i64))
def push(head: Word, time: Word, serial: Word, key: Word) -> None:
    """Puts an entry into the heap; there is room, because `insert` packs it."""
    heap, at = load64(head + HEAP), load64(head + PLACES)
    store64(head + PLACES, at + 1)
    while at > 0:
        parent = heap + ((at - 1) >> 1) * PLACE_BYTES
        if _before(parent, time, serial):
            break
        _set_place(heap + at * PLACE_BYTES, load64(parent), load64(parent + 8), load64(parent + 16))
        at = (at - 1) >> 1
    _set_place(heap + at * PLACE_BYTES, time, serial, key)


@compiled(void(i64, i64, i64, i64, i64))
def _sink(head: Word, at: Word, time: Word, serial: Word, key: Word) -> None:
    """Puts an entry where it belongs below place `at` of the heap."""
    heap, places = load64(head + HEAP), load64(head + PLACES)
    while True:
        child = 2 * at + 1
        if child >= places:
            break
        lower = heap + child * PLACE_BYTES
        right = lower + PLACE_BYTES
        if child + 1 < places and _before(right, load64(lower), load64(lower + 8)):
            lower, child = right, child + 1
        if not _before(lower, time, serial):
            break
        _set_place(heap + at * PLACE_BYTES, load64(lower), load64(lower + 8), load64(lower + 16))
        at = child
    _set_place(heap + at * PLACE_BYTES, time, serial, key)


@compiled(void(i64))
def pack(head: Word) -> None:
    """Makes the heap anew from the entries that there are."""
    table, heap, base = load64(head + TABLE), load64(head + HEAP), load64(head + BASE)
    places = 0
    for at in range(load64(head + MASK) + 1):
        record = table + (at << RECORD_SHIFT)
        if load64(record) != 0 and seen(record) != ALWAYS:
            place, serial = heap + places * PLACE_BYTES, load64(aside(head, record))
            _set_place(place, seen(record) + base, serial, load64(record) & KEY_MASK)
            places += 1
    store64(head + PLACES, places)
    for back in range(places >> 1):
        at = (places >> 1) - 1 - back
        place = heap + at * PLACE_BYTES
        _sink(head, at, load64(place), load64(place + 8), load64(place + 16))


@compiled(i64(i64, i64))
def count(head: Word, now_ns: Word) -> Word:
    """Returns how many entries are alive, taking back the places of the dead. Amortized O(log n) an entry."""
    heap, horizon, base = load64(head + HEAP), now_ns - load64(head + AGEING), load64(head + BASE)
    while load64(head + PLACES) > 0 and load64(heap) <= horizon:
        serial, key = load64(heap + 8), load64(heap + 16)
        record = find(head, key)
        there = load64(record) != 0 and load64(aside(head, record)) == serial
        if there and seen(record) + base > horizon:
            _sink(head, 0, seen(record) + base, serial, key)
            continue
        places = load64(head + PLACES) - 1
        store64(head + PLACES, places)
        last = heap + places * PLACE_BYTES
        if places > 0:
            _sink(head, 0, load64(last), load64(last + 8), load64(last + 16))
        if there:
            remove(head, record)
    return load64(head + SIZE)


@compiled(i64(i64, i64, i64, i64, i64))
def insert(head: Word, key: Word, port: Word, now_ns: Word, static: Word) -> Word:
    """Makes an entry of a key that has none. Returns NEW, or GROW and changes nothing."""
    size = load64(head + SIZE) + 1
    if size * EMPTIEST > load64(head + MASK) + 1:
        return GROW
    record, serial = find(head, key), load64(head + SERIAL) + 1
    _write(record, key, port, ALWAYS if static else now_ns - load64(head + BASE))
    store64(aside(head, record), serial)
    store64(aside(head, record) + 8, now_ns)
    store64(head + SERIAL, serial)
    store64(head + SIZE, size)
    store64(head + VERSION, load64(head + VERSION) + 1)
    if not static:
        _count_behind(head, port, 1)
        push(head, now_ns, serial, key)
        if load64(head + PLACES) > 2 * size + 64:
            pack(head)
    return NEW


@compiled(i64(i64, i64, i64, i64, i64))
def learn_at(head: Word, record: Word, key: Word, port: Word, now_ns: Word) -> Word:
    """Notes that an address was seen as a source at a port; `record` is what `find` says. Returns what came of it."""
    if not alive(head, record, now_ns):
        if count(head, now_ns) >= load64(head + LIMIT):
            return FULL
        return insert(head, key, port, now_ns, 0)
    known = port_of(record)
    if seen(record) == ALWAYS:
        return STATIC if known == port else STATIC_ELSEWHERE
    _write(record, key, port, now_ns - load64(head + BASE))
    if known == port:
        return REFRESHED
    _count_behind(head, known, -1)
    _count_behind(head, port, 1)
    store64(head + MOVED_FROM, known)
    store64(head + VERSION, load64(head + VERSION) + 1)
    return MOVED


@compiled(i64(i64, i64, i64, i64, i64))
def route(head: Word, source: Word, target: Word, port: Word, now_ns: Word) -> Word:
    """Returns the port of the key `target` if both keys are known and nothing about them is news, else 0.

    As `domain.fdb.Fdb.known_route`; the source is refreshed.
    """
    origin, known = find(head, source), find(head, target)
    now = now_ns - load64(head + BASE)
    oldest = now - load64(head + AGEING)
    if load64(origin) == 0 or load64(known) == 0 or seen(origin) == ALWAYS or seen(known) == ALWAYS:
        return 0
    slot = port_of(known)
    if port_of(origin) != port or slot == port or seen(origin) <= oldest or seen(known) <= oldest:
        return 0
    _write(origin, source, port, now)
    return slot


@compiled(void(i64, i64, i64, i64))
def rehash(head: Word, table: Word, apart: Word, mask: Word) -> None:
    """Moves all records into a larger table, which is zero, and what is known aside of them."""
    old, old_apart, size = load64(head + TABLE), load64(head + ASIDE), load64(head + MASK) + 1
    store64(head + TABLE, table)
    store64(head + ASIDE, apart)
    store64(head + MASK, mask)
    for at in range(size):
        record = old + (at << RECORD_SHIFT)
        if load64(record) != 0:
            found = find(head, load64(record) & KEY_MASK)
            copy16(found, record)
            copy16(aside(head, found), old_apart + (at << RECORD_SHIFT))


@compiled(void(i64, i64))
def rebase(head: Word, base: Word) -> None:
    """Counts all times from another one; none of them may be further away than 49 bits tell."""
    table, change = load64(head + TABLE), load64(head + BASE) - base
    for at in range(load64(head + MASK) + 1):
        record = table + (at << RECORD_SHIFT)
        if load64(record) != 0 and seen(record) != ALWAYS:
            store64(record + 8, stamp(port_of(record), seen(record) + change))
    store64(head + BASE, base)
