"""Numbers that strangers must not guess: initial sequence numbers, timestamp offsets, ephemeral ports.

All are keyed hashes of the four-tuple, so that they are unpredictable without the seed and repeat with it.
Source: RFC 6528 (sequence numbers), RFC 7323, 5.4 (timestamps), RFC 6056, 3.3.3 (ports).
"""

from __future__ import annotations

import hashlib
import struct

from lamina_net.tcp.sequence import MASK

FourTuple = tuple[int, int, int, int]
"""Local address, local port, remote address, remote port."""

_TUPLE = struct.Struct("!IHIH")
_COOKIE = struct.Struct("!IHIHIqB")


class Identity:
    """The keyed hashes of a layer. `seed`: any bytes; whoever knows it can guess the numbers."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        self._key = hashlib.blake2b(seed, digest_size=32).digest()

    def _hash(self, purpose: bytes, four: FourTuple) -> int:
        digest = hashlib.blake2b(_TUPLE.pack(*four), digest_size=4, key=self._key, person=purpose).digest()
        return int.from_bytes(digest, "big")

    def initial_sequence(self, four: FourTuple, now_ns: int) -> int:
        """Return an initial sequence number of 32 bits: the hash, and a clock that ticks each 4 µs."""
        return (self._hash(b"isn", four) + now_ns // 4000) & MASK

    def cookie(self, four: FourTuple, syn: int, period: int, index: int) -> int:
        """Return the hash, 32 bits, of what a SYN cookie must not be made for by others (RFC 4987, 3.6)."""
        data = _COOKIE.pack(*four, syn, period, index)
        return int.from_bytes(hashlib.blake2b(data, digest_size=4, key=self._key, person=b"cookie").digest(), "big")

    def timestamp_offset(self, four: FourTuple) -> int:
        """Return what is added to the milliseconds in the timestamps of a connection, 32 bits."""
        return self._hash(b"timestamp", four)

    def port_offset(self, local: int, remote: int, remote_port: int) -> int:
        """Return where the search for an ephemeral port towards this peer begins."""
        return self._hash(b"port", (local, 0, remote, remote_port))
