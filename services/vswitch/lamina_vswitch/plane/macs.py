"""The MAC table of the plane: open addressing over (address, VLAN), and a heap for ageing; all compiled.

It is the table of `domain/fdb.py` in flat memory, entry for entry: the same ageing in closed form, the same heap whose
times are never later than the true ones, the same limit. A record takes half a cache line, and the search for
it begins at the first of two that share one; probing is linear, and a removal moves later records back, so that there
are no gravestones.
At most a quarter of the places is taken: a search that ends within its line, as nearly all do, has no branch that a
processor could guess wrong, and a wrong guess costs more than the larger table does. The place of a record depends on a
secret number: who sends frames cannot choose addresses that fall together.

    record   0  8  key: address (little-endian) · 4096 + VLAN, with bit 62 set; 0 when the place is free
             8  8  time last seen in nanoseconds
            16  8  slot of the port; bit 32 is set in a static entry
            24  8  serial number of its making
    heap     0  8  a time at which the entry was alive
             8  8  serial number
            16  8  key
"""

from __future__ import annotations

from lamina_vswitch.plane.native import Word, compiled, copy32, i64, inlined, load64, store64, void

TABLE, MASK, SIZE, LIMIT, AGEING, SECRET, SERIAL, VERSION, HEAP, PLACES, MOVED_FROM, BEHIND = range(0, 96, 8)
"""Offsets in the head of a table, in bytes; MASK is the number of records less one, PLACES those used in the heap,
BEHIND the address of the number of dynamic entries of each port, by slot."""
HEAD_WORDS = 12
RECORD_SHIFT, RECORD_WORDS, PLACE_WORDS, PLACE_BYTES = 5, 4, 3, 24
SEEN, PORT, MADE = 8, 16, 24
OCCUPIED, STATIC_BIT, SLOT_MASK = 1 << 62, 1 << 32, (1 << 32) - 1
MAC_SHIFT = 12
LINE_MASK = -2
"""What of a place is the first place of its cache line."""
EMPTIEST = 4
"""Places for each record, at least."""
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

    Which of the first two places it is, is computed and not branched on.
    """
    at = hashed & mask & LINE_MASK
    record = table + (at << RECORD_SHIFT)
    first = load64(record)
    second = (1 if first != key else 0) & (1 if first != 0 else 0)
    at += second
    record += second << RECORD_SHIFT
    found = load64(record)
    while found != key and found != 0:
        at = (at + 1) & mask
        record = table + (at << RECORD_SHIFT)
        found = load64(record)
    return record


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
    return 1 if load64(record + PORT) & STATIC_BIT or now_ns - load64(record + SEEN) < load64(head + AGEING) else 0


@compiled(void(i64, i64, i64))
def _count_behind(head: Word, port: Word, change: Word) -> None:
    """Counts dynamic entries behind a port."""
    number = load64(head + BEHIND) + 8 * port
    store64(number, load64(number) + change)


@compiled(void(i64, i64))
def remove(head: Word, record: Word) -> None:
    """Forgets the entry of a place, and moves those back that were found by passing it."""
    table, mask = load64(head + TABLE), load64(head + MASK)
    if load64(record + PORT) & STATIC_BIT == 0:
        _count_behind(head, load64(record + PORT), -1)
    hole = (record - table) >> RECORD_SHIFT
    at = (hole + 1) & mask
    key = load64(table + (at << RECORD_SHIFT))
    while key != 0:
        if ((at - (mixed(head, key) & LINE_MASK)) & mask) >= ((at - hole) & mask):
            copy32(table + (hole << RECORD_SHIFT), table + (at << RECORD_SHIFT))
            hole = at
        at = (at + 1) & mask
        key = load64(table + (at << RECORD_SHIFT))
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
    table, heap = load64(head + TABLE), load64(head + HEAP)
    places = 0
    for at in range(load64(head + MASK) + 1):
        record = table + (at << RECORD_SHIFT)
        if load64(record) != 0 and load64(record + PORT) & STATIC_BIT == 0:
            _set_place(heap + places * PLACE_BYTES, load64(record + SEEN), load64(record + MADE), load64(record))
            places += 1
    store64(head + PLACES, places)
    for back in range(places >> 1):
        at = (places >> 1) - 1 - back
        place = heap + at * PLACE_BYTES
        _sink(head, at, load64(place), load64(place + 8), load64(place + 16))


@compiled(i64(i64, i64))
def count(head: Word, now_ns: Word) -> Word:
    """Returns how many entries are alive, taking back the places of the dead. Amortized O(log n) an entry."""
    heap, horizon = load64(head + HEAP), now_ns - load64(head + AGEING)
    while load64(head + PLACES) > 0 and load64(heap) <= horizon:
        serial, key = load64(heap + 8), load64(heap + 16)
        record = find(head, key)
        if load64(record) != 0 and load64(record + MADE) == serial and load64(record + SEEN) > horizon:
            _sink(head, 0, load64(record + SEEN), serial, key)
            continue
        places = load64(head + PLACES) - 1
        store64(head + PLACES, places)
        last = heap + places * PLACE_BYTES
        if places > 0:
            _sink(head, 0, load64(last), load64(last + 8), load64(last + 16))
        if load64(record) != 0 and load64(record + MADE) == serial:
            remove(head, record)
    return load64(head + SIZE)


@compiled(i64(i64, i64, i64, i64))
def insert(head: Word, key: Word, port: Word, now_ns: Word) -> Word:
    """Makes an entry of a key that has none; `port` carries STATIC_BIT. Returns NEW, or GROW and changes nothing."""
    size = load64(head + SIZE) + 1
    if size * EMPTIEST > load64(head + MASK) + 1:
        return GROW
    record, serial = find(head, key), load64(head + SERIAL) + 1
    store64(record, key)
    store64(record + SEEN, now_ns)
    store64(record + PORT, port)
    store64(record + MADE, serial)
    store64(head + SERIAL, serial)
    store64(head + SIZE, size)
    store64(head + VERSION, load64(head + VERSION) + 1)
    if port & STATIC_BIT == 0:
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
        return insert(head, key, port, now_ns)
    known = load64(record + PORT)
    if known & STATIC_BIT:
        return STATIC if known & SLOT_MASK == port else STATIC_ELSEWHERE
    store64(record + SEEN, now_ns)
    if known == port:
        return REFRESHED
    _count_behind(head, known, -1)
    _count_behind(head, port, 1)
    store64(head + MOVED_FROM, known)
    store64(record + PORT, port)
    store64(head + VERSION, load64(head + VERSION) + 1)
    return MOVED


@compiled(i64(i64, i64, i64, i64, i64))
def route(head: Word, source: Word, target: Word, port: Word, now_ns: Word) -> Word:
    """Returns the port of the key `target` if both keys are known and nothing about them is news, else 0.

    As `domain.fdb.Fdb.known_route`; the source is refreshed.
    """
    origin, known = find(head, source), find(head, target)
    oldest = now_ns - load64(head + AGEING)
    if load64(origin) != source or load64(known) != target:
        return 0
    slot = load64(known + PORT)  # one with STATIC_BIT is no port where frames enter
    if load64(origin + PORT) != port or slot == port or slot & STATIC_BIT:
        return 0
    if load64(origin + SEEN) <= oldest or load64(known + SEEN) <= oldest:
        return 0
    store64(origin + SEEN, now_ns)
    return slot


@compiled(void(i64, i64, i64))
def rehash(head: Word, table: Word, mask: Word) -> None:
    """Moves all records into a larger table, which is zero."""
    old, size = load64(head + TABLE), load64(head + MASK) + 1
    store64(head + TABLE, table)
    store64(head + MASK, mask)
    for at in range(size):
        record = old + (at << RECORD_SHIFT)
        if load64(record) != 0:
            copy32(find(head, load64(record)), record)
