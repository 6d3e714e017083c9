"""CRC-32C of a page of 4096 bytes, by tables and numpy. Pure.

A CRC is linear over XOR: that of a page is the XOR of what each byte contributes at its place. A page is cut into 64
rows of 64 bytes; one table gives what a byte contributes to the CRC of its row, a second moves the CRC of a row past
the rows behind it. Both fit into the caches.

Source: RFC 3720, 12.1 and B.4 (polynomial 0x1EDC6F41, reflected 0x82F63B78, initial value and final XOR 0xFFFFFFFF).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from lamina_kit.errors import Internal

PAGE, SIDE = 4096, 64
_POLYNOMIAL = 0x82F6_3B78
_MASK = 0xFFFF_FFFF


def _byte_table() -> list[int]:
    """Returns the state that each byte makes of state 0."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_BYTES = np.array(_byte_table(), np.uint32)


def _past_zeros(states: Any, count: int) -> Any:
    """Returns what `count` zero bytes make of states."""
    for _ in range(count):
        states = _BYTES[states & np.uint32(0xFF)] ^ states >> np.uint32(8)
    return states


def _row_table() -> Any:
    """Returns, by place in a row and byte, the contribution to the row's CRC; flat."""
    table = np.zeros((SIDE, 256), np.uint32)
    table[SIDE - 1] = _BYTES
    for place in range(SIDE - 2, -1, -1):
        table[place] = _past_zeros(table[place + 1], 1)
    return table.reshape(-1)


def _page_table() -> Any:
    """Returns, by row, place in its CRC and byte, the contribution to the page's CRC; flat."""
    table = np.zeros((SIDE, 4, 256), np.uint32)
    values = np.arange(256, dtype=np.uint32)
    for place in range(4):
        table[SIDE - 1, place] = values << np.uint32(8 * place)
    for row in range(SIDE - 2, -1, -1):
        table[row] = _past_zeros(table[row + 1], SIDE)
    return table.reshape(-1)


@cache
def _tables() -> tuple[Any, Any, int]:
    """Returns both tables and what a page of zeros makes of the initial value; made when first asked for (40 ms)."""
    return _row_table(), _page_table(), int(_past_zeros(np.array([_MASK], np.uint32), PAGE)[0])


_ROW_OFFSETS = np.tile(np.arange(SIDE, dtype=np.intp) * 256, SIDE)
_PAGE_OFFSETS = np.arange(4 * SIDE, dtype=np.intp) * 256


def crc32c(page: bytes | memoryview) -> int:
    """Returns the CRC-32C of exactly 4096 bytes."""
    data = np.frombuffer(page, np.uint8)
    if len(data) != PAGE:
        raise Internal(f"{len(data)} bytes are not a page.", reason="PAGE_INCOMPLETE")
    of_rows, of_pages, start = _tables()
    # No index is outside; `wrap` spares numpy the copy that it makes to be able to raise.
    rows = np.bitwise_xor.reduce(of_rows.take(_ROW_OFFSETS + data, mode="wrap").reshape(SIDE, SIDE), axis=1)
    folded = of_pages.take(_PAGE_OFFSETS + rows.view(np.uint8), mode="wrap")
    return int(np.bitwise_xor.reduce(folded)) ^ start ^ _MASK
