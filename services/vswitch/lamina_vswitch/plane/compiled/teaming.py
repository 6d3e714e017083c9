"""Which uplink of a team a frame takes, compiled: `domain.teaming.choose` and `domain.offload.spread.flow_hash`.

What lies behind the head of a frame is read where it lies: who rewrites it meanwhile chooses an uplink, and no more.
"""

from __future__ import annotations

from lamina_vswitch.plane.compiled import layout, mac_table
from lamina_vswitch.plane.compiled.intrinsics import Word, compiled, i64, load8, load16, load64, load_big16
from lamina_vswitch.plane.compiled.pipeline import HEADER_BYTES, TAG_BYTES, TPID
from lamina_vswitch.plane.compiled.tags import TPID_PROVIDER

SOURCE_MAC, FLOW = 2, 3
"""Numbers of `domain.teaming.Balancing`; what does not depend on the frame, Python has chosen."""
_ADDRESS, _ALL = (1 << 48) - 1, (1 << 32) - 1
_SIGN = -(1 << 63)
_SPREAD, _MIX, _STIR = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
_TCP, _UDP, _MOST_TAGS = 6, 17, 3
_IP4, _IP6, _IP4_BYTES, _IP6_BYTES = 0x0008, 0xDD86, 20, 40


@compiled(i64(i64, i64, i64, i64))
def _more(sums: Word, state: Word, at: Word, size: Word) -> Word:
    """Returns the state of a CRC-32 after `size` more bytes, which lie at `at`."""
    for offset in range(size):
        state = load64(sums + ((state ^ load8(at + offset)) & 0xFF) * 8) ^ (state >> 8)
    return state


@compiled(i64(i64, i64, i64))
def _address_sum(sums: Word, state: Word, address: Word) -> Word:
    """Returns the state after the six bytes of an address, which is a little-endian number."""
    for shift in range(0, 48, 8):
        state = load64(sums + ((state ^ (address >> shift)) & 0xFF) * 8) ^ (state >> 8)
    return state


@compiled(i64(i64))
def source_of(one: Word) -> Word:
    """Returns the source of a frame."""
    return (load64(one + layout.SOURCE) >> mac_table.MAC_SHIFT) & _ADDRESS


@compiled(i64(i64, i64, i64, i64))
def _has_ports(frame: Word, start: Word, end: Word, protocol: Word) -> Word:
    """Returns 1 when a whole header of TCP or UDP lies at `start` of a packet that ends at `end`."""
    room = end - start
    if protocol == _TCP and room >= 20:
        size = (load8(frame + start + 12) >> 4) * 4
        return 1 if size >= 20 and size <= room else 0
    if protocol == _UDP and room >= 8:
        length = load_big16(frame + start + 4)
        return 1 if length >= 8 and length <= room else 0
    return 0


@compiled(i64(i64, i64, i64, i64, i64, i64, i64))
def _packet_sum(sums: Word, frame: Word, addresses: Word, size: Word, start: Word, end: Word, protocol: Word) -> Word:
    """Returns the hash of a flow by its addresses, and by protocol and ports where those are there (`start` not 0)."""
    state = _more(sums, _ALL, frame + addresses, size)
    if start != 0 and _has_ports(frame, start, end, protocol):
        state = load64(sums + ((state ^ protocol) & 0xFF) * 8) ^ (state >> 8)
        state = _more(sums, state, frame + start, 4)
    return state ^ _ALL


@compiled(i64(i64, i64, i64, i64))
def flow_hash(sums: Word, one: Word, frame: Word, length: Word) -> Word:
    """Returns the hash of the flow of a frame of at least 14 bytes."""
    kind, l3, tags = load16(frame + 12), HEADER_BYTES, 0
    while kind in (TPID, TPID_PROVIDER) and tags < _MOST_TAGS and length >= l3 + TAG_BYTES:
        kind, l3, tags = load16(frame + l3 + 2), l3 + TAG_BYTES, tags + 1
    found = -1
    if kind == _IP4 and length >= l3 + _IP4_BYTES and load8(frame + l3) >> 4 == 4:
        header, total = (load8(frame + l3) & 15) * 4, load_big16(frame + l3 + 2)
        if header >= _IP4_BYTES and total >= header and l3 + total <= length:
            start = 0 if load_big16(frame + l3 + 6) & 0x3FFF else l3 + header
            found = _packet_sum(sums, frame, l3 + 12, 8, start, l3 + total, load8(frame + l3 + 9))
    elif kind == _IP6 and length >= l3 + _IP6_BYTES and load8(frame + l3) >> 4 == 6:
        end = l3 + _IP6_BYTES + load_big16(frame + l3 + 4)
        if end <= length:
            found = _packet_sum(sums, frame, l3 + 8, 32, l3 + _IP6_BYTES, end, load8(frame + l3 + 6))
    if found < 0:
        state = _address_sum(sums, _ALL, load64(one + layout.LOW) & _ADDRESS)
        found = _address_sum(sums, state, source_of(one)) ^ _ALL
    return found if found != 0 else 1


@compiled(i64(i64, i64))
def _mixed(key: Word, slot: Word) -> Word:
    """Returns the hash of a frame and an uplink, as a number whose order as a signed one is theirs."""
    mixed = key ^ (slot * _SPREAD)
    mixed = (mixed ^ ((mixed >> 30) & 0x3FFFFFFFF)) * _MIX
    mixed = (mixed ^ ((mixed >> 27) & 0x1FFFFFFFFF)) * _STIR
    return (mixed ^ ((mixed >> 31) & 0x1FFFFFFFF)) ^ _SIGN


@compiled(i64(i64, i64, i64, i64))
def way_out(work: Word, entry: Word, one: Word, frame: Word) -> Word:
    """Returns the slot of the uplink that a frame takes, 0 when there is none."""
    ways, slots = load64(entry + layout.ENTRY_WAYS), entry + layout.ENTRY_SLOTS
    if ways == 0:
        return 0
    chosen = load64(slots)
    if ways > 1:
        sums = load64(work + layout.SUMS)
        if load64(entry + layout.ENTRY_BALANCING) == FLOW:
            key = flow_hash(sums, one, frame, load64(one + layout.LENGTH))
        else:
            key = _address_sum(sums, _ALL, source_of(one)) ^ _ALL
        best = _mixed(key, chosen)
        for at in range(1, ways):
            slot = load64(slots + 8 * at)
            mixed = _mixed(key, slot)
            if mixed > best:
                best, chosen = mixed, slot
    return chosen
