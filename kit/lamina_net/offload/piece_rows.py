"""Pieces of equal length as the rows of one array: cut at once, with all sums, where there are many. Pure.

Row `n` is the header, with number, identification and sums of its own, and the payload's bytes [n * segment, (n + 1) *
segment). Words are summed as this machine reads them, and the sums swapped: that is the same (RFC 1071, 2 B).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamina_net.offload.headers import CWR, FIN, PSH, Headers, ones_sum, pseudo_sum

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

FEW = 4
"""Pieces below which an array costs more than it saves."""
_LEAST_BYTES = {4: 20, 6: 40}
_LEAST_TCP_BYTES = 20


def is_regular(headers: Headers) -> bool:
    """Tell whether headers are as parsers find them; those that a driver tells a NIC may overlap or be odd."""
    l3, l4, payload = headers.l3, headers.l4, headers.payload
    return l4 - l3 >= _LEAST_BYTES[headers.version] and payload - l4 >= _LEAST_TCP_BYTES and not (payload - l4) & 1


def cut_rows(frame: bytes | bytearray, headers: Headers, segment: int, count: int) -> list[bytearray]:
    """Return the first `count` pieces of a TCP packet, each of `segment` bytes of payload; none of them is its last."""
    import numpy as np

    size, l4 = headers.payload, headers.l4
    payload = np.frombuffer(frame, np.uint8, count * segment, size).reshape(count, segment)
    rows = np.empty((count, size + segment), np.uint8)
    base = _header(frame, headers, segment)
    rows[:, :size] = np.frombuffer(base, np.uint8)
    rows[:, size:] = payload
    numbers = np.arange(count, dtype=np.int64)
    if headers.version == 4:
        identifications = (int.from_bytes(frame[headers.l3 + 4 : headers.l3 + 6], "big") + numbers) & 0xFFFF
        _put(rows, headers.l3 + 4, identifications)
        _put(rows, headers.l3 + 10, _complement(identifications + ones_sum(base[headers.l3 : l4])))
    sequences = (int.from_bytes(frame[l4 + 4 : l4 + 8], "big") + numbers * segment) & 0xFFFFFFFF
    _put(rows, l4 + 4, sequences >> 16)
    _put(rows, l4 + 6, sequences & 0xFFFF)
    first = frame[l4 + 13] & CWR  # what only the first piece says
    rows[0, l4 + 13] |= first
    length = size + segment - l4
    sums = row_sums(payload) + (sequences >> 16) + (sequences & 0xFFFF)
    sums += ones_sum(base[l4:]) + pseudo_sum(base, headers, length)
    sums[0] += first
    _put(rows, l4 + 16, _complement(sums))
    whole, width = rows.reshape(-1).data, size + segment
    return [bytearray(whole[place : place + width]) for place in range(0, count * width, width)]


def row_sums(rows: NDArray[np.uint8]) -> Numbers:
    """Return the sum of the 16-bit words of each row, 0 to 65535; an odd last byte is padded with a zero byte.

    The bytes of a row lie side by side, the rows may lie apart.
    """
    import numpy as np

    count, width = rows.shape
    if width & 1:
        padded = np.zeros((count, width + 1), np.uint8)
        padded[:, :width] = rows
        rows = padded
    words = rows.view("<u2")
    # 32 bits hold the words of 128 KiB; `einsum` sums along rows three times as fast as `sum` does
    totals: Any = np.einsum("ij->i", words, dtype=np.uint32, casting="unsafe")
    folded = totals.astype(np.int64) % 0xFFFF
    return np.where((folded == 0) & (totals != 0), 0xFFFF, (folded & 0xFF) << 8 | folded >> 8)


def _header(frame: bytes | bytearray, headers: Headers, segment: int) -> bytes:
    """Return the header that all pieces have: lengths set; numbers, identification and sums zero."""
    base = bytearray(frame[: headers.payload])
    l3, l4 = headers.l3, headers.l4
    if headers.version == 4:
        base[l3 + 2 : l3 + 4] = (headers.payload - l3 + segment).to_bytes(2, "big")
        base[l3 + 4 : l3 + 6] = base[l3 + 10 : l3 + 12] = b"\0\0"
    else:
        base[l3 + 4 : l3 + 6] = (headers.payload - l3 - _LEAST_BYTES[6] + segment).to_bytes(2, "big")
    base[l4 + 4 : l4 + 8] = bytes(4)
    base[l4 + 13] &= 0xFF ^ (FIN | PSH | CWR)
    base[l4 + 16 : l4 + 18] = b"\0\0"
    return bytes(base)


def _complement(sums: Numbers) -> Numbers:
    """Return the checksums that sums, of which none is zero, come down to."""
    return 0xFFFF - ((sums - 1) % 0xFFFF + 1)


def _put(rows: NDArray[np.uint8], place: int, values: Numbers) -> None:
    """Write 16-bit values, big end first."""
    rows[:, place] = values >> 8
    rows[:, place + 1] = values & 0xFF
