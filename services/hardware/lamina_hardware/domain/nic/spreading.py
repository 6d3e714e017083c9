"""Receive side scaling: which queue a frame goes to. Toeplitz hash of addresses and ports, then a table.

Source: Microsoft, "RSS hashing functions"; Intel 82599 datasheet, chapter 7.1.2.8.
"""

from __future__ import annotations

from enum import IntEnum

from lamina_net.offload.headers import TCP, UDP, Headers

KEY_BYTES = 40
TABLE_ENTRIES = 128
_LONGEST = 36
_WINDOW = (1 << 32) - 1

DEFAULT_KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
"""The key of the published test vectors; a driver that fears chosen collisions sets its own."""


class HashType(IntEnum):
    """What was hashed, as the receive descriptor says it (82599, table 7-12)."""

    NONE = 0
    IPV4_TCP = 1
    IPV4 = 2
    IPV6_TCP = 3
    IPV6 = 5
    IPV4_UDP = 7
    IPV6_UDP = 8


class Toeplitz:
    """The hash for one key of 40 bytes: a table of 256 words for each byte position, XORed together."""

    def __init__(self, key: bytes) -> None:
        number = int.from_bytes(key, "big")
        bits = KEY_BYTES * 8
        windows = [(number >> (bits - 32 - shift)) & _WINDOW for shift in range(_LONGEST * 8)]
        self._tables = [_byte_table(windows[8 * place : 8 * place + 8]) for place in range(_LONGEST)]

    def hash(self, data: bytes | bytearray | memoryview) -> int:
        """Returns the 32-bit hash of at most 36 bytes."""
        found = 0
        for table, byte in zip(self._tables, data, strict=False):
            found ^= table[byte]
        return found


def _byte_table(windows: list[int]) -> list[int]:
    """Returns what each value of a byte contributes; `windows` are the 8 key windows of its bits, high bit first."""
    table = [0]
    for window in reversed(windows):
        table += [known ^ window for known in table]
    return table


class Spreading:
    """Receive side scaling of one NIC. Off: every frame has hash 0 and queue 0."""

    def __init__(
        self, enabled: bool = False, key: bytes = DEFAULT_KEY, table: tuple[int, ...] = (), hash_ports: bool = True
    ) -> None:
        self.enabled, self.key, self.hash_ports = enabled, key, hash_ports
        self.table = table or (0,) * TABLE_ENTRIES
        self._toeplitz = Toeplitz(key) if enabled else None

    def place(self, frame: bytes | bytearray | memoryview, headers: Headers) -> tuple[int, int, HashType]:
        """Returns receive queue, hash and its type."""
        if self._toeplitz is None or not headers.version:
            return self.table[0] if self.enabled else 0, 0, HashType.NONE
        kind = self._kind(headers)
        first, size = (12, 8) if headers.version == 4 else (8, 32)
        data = bytes(frame[headers.l3 + first : headers.l3 + first + size])
        if kind not in (HashType.IPV4, HashType.IPV6):
            data += bytes(frame[headers.l4 : headers.l4 + 4])
        value = self._toeplitz.hash(data)
        return self.table[value & (TABLE_ENTRIES - 1)], value, kind

    def _kind(self, headers: Headers) -> HashType:
        has_ports = self.hash_ports and headers.protocol in (TCP, UDP)
        if headers.version == 4:
            return (HashType.IPV4_TCP if headers.protocol == TCP else HashType.IPV4_UDP) if has_ports else HashType.IPV4
        return (HashType.IPV6_TCP if headers.protocol == TCP else HashType.IPV6_UDP) if has_ports else HashType.IPV6
