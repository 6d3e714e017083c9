"""The Internet checksum: the ones' complement of the ones' complement sum of 16-bit words. Pure.

Adding 16-bit words with the carry brought around is arithmetic modulo 65535, as 2¹⁶ ≡ 1; so a packet is one large
number and its sum that number modulo 65535. The residue 0 stands for two sums, 0x0000 and 0xffff; only bytes that are
all zero have the first. Long packets go through numpy, which is faster from about a kilobyte on.

Source: RFC 1071; RFC 1624 for the incremental update.
"""

from __future__ import annotations

_LONG = 1024
"""Bytes from which on numpy is faster than one large number."""


def word_sum(data: bytes | bytearray | memoryview) -> int:
    """Return the folded ones' complement sum of `data`, 0 to 65535; an odd last byte is padded with a zero byte."""
    size = len(data)
    if size >= _LONG:
        return _long_sum(data, size)
    number = int.from_bytes(data, "big")
    if size & 1:
        number <<= 8
    return number % 65535 or (65535 if number else 0)


def _long_sum(data: bytes | bytearray | memoryview, size: int) -> int:
    """Return the sum by native 32-bit words: the sum of swapped words is the swapped sum (RFC 1071, 2 B)."""
    import numpy as np  # 12 MB, for those only who see long packets

    words = size >> 2
    total = int(np.frombuffer(data, "<u4", words).sum(dtype=np.uint64)) + int.from_bytes(data[words << 2 :], "little")
    folded = total % 65535 or (65535 if total else 0)
    return (folded & 0xFF) << 8 | folded >> 8


def checksum(data: bytes, initial: int = 0) -> int:
    """Return the checksum of `data`, 0 to 65535. `initial` is a sum to begin with, such as a pseudo header's."""
    total = word_sum(data) + initial
    return 65535 - (total % 65535 or (65535 if total else 0))


def is_right(data: bytes, initial: int = 0) -> bool:
    """Tell whether `data`, its checksum field included, sums to all ones."""
    size = len(data)
    if size >= _LONG:
        return (_long_sum(data, size) + initial) % 65535 == 0 and (initial != 0 or any(data))
    number = int.from_bytes(data, "big")  # as `word_sum` does, without a call: every packet comes by here
    if size & 1:
        number <<= 8
    return (number + initial) % 65535 == 0 and (initial != 0 or number != 0)


def pseudo_sum(src: int, dst: int, protocol: int, size: int) -> int:
    """Return the sum, not folded, of the pseudo header of UDP and TCP: addresses, protocol, bytes of header and data.

    Source: RFC 9293, 3.1; RFC 768.
    """
    return (src >> 16) + (src & 0xFFFF) + (dst >> 16) + (dst & 0xFFFF) + protocol + size


def updated(old_checksum: int, old: int, new: int) -> int:
    """Return the checksum, 0 to 65535, after a field went from `old` to `new`.

    The field has any multiple of 16 bits and starts at an even byte; for an address give both as 32-bit numbers. A
    checksum that was wrong stays wrong. The checksum 0 of UDP, which means none, must not come here; a result of 0 has
    to be sent as 0xffff there. Source: RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
    """
    total = (old_checksum ^ 0xFFFF) + (_folded(old) ^ 0xFFFF) + _folded(new)
    return _folded(total) ^ 0xFFFF


def _folded(number: int) -> int:
    return number % 65535 or (65535 if number else 0)
