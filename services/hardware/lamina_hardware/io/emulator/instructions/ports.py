"""Who may use a port: IOPL, else the bitmap of the task-state segment; compiled.

Source: Intel SDM vol. 1, 19.5 (I/O privilege level, I/O permission bit map).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import ENV, L_PORT_RIGHT, STOP, STOP_FAULT
from lamina_hardware.io.emulator.tlb.guest_memory import fetch
from lamina_hardware.io.native import Word, linked, load32, load64, put, u64, word

_0, _1, _2, _3, _7, _8, _12, _16 = (u64(n) for n in (0, 1, 2, 3, 7, 8, 12, 16))
_MAP_BASE = u64(102)

PORT_REFUSED, PORT_ALLOWED, PORT_UNKNOWN = u64(0), u64(1), u64(2)


@linked(L_PORT_RIGHT)
def port_right(block: int, port: int, size: int) -> Word:
    """Returns PORT_ALLOWED, PORT_REFUSED (#GP), or PORT_UNKNOWN with a fault of the bitmap's memory in the block.

    A context whose task register was never loaded (selector 0) has no bitmap.
    """
    env = word(block, ENV)
    if (load32(env + at.HFLAGS) & at.HF_CPL) <= ((load64(env + at.EFLAGS) >> _12) & _3):
        return PORT_ALLOWED
    limit = load32(env + at.TR + _16)
    base = load64(env + at.TR + _8)
    if load32(env + at.TR) & u64(0xFFFC) == _0 or limit < _MAP_BASE + _1:
        return PORT_REFUSED
    place = fetch(block, base + _MAP_BASE, _2, _1)
    if place == _0:
        put(block, STOP, STOP_FAULT)
        return PORT_UNKNOWN
    offset = load64(place) + (port >> _3)
    if offset + _1 > limit:
        return PORT_REFUSED
    place = fetch(block, base + offset, _2, _1)
    if place == _0:
        put(block, STOP, STOP_FAULT)
        return PORT_UNKNOWN
    mask = ((_1 << size) - _1) << (port & _7)
    return PORT_REFUSED if load64(place) & mask != _0 else PORT_ALLOWED
