"""A queue of bytes in blocks: bytes are added at the end, looked at anywhere, dropped from the front.

One long `bytearray` would be copied whole each time that its end reaches what is allocated, since its front moves.
"""

from __future__ import annotations

_SHIFT = 16
_BLOCK = 1 << _SHIFT


class ByteQueue:
    """Up to a block of 64 KiB more memory than it holds. Every operation costs what it moves, not what it holds."""

    __slots__ = ("_blocks", "_length", "_skipped")

    def __init__(self) -> None:
        self._blocks: list[bytearray] = []
        self._skipped = 0  # bytes of the first block that were dropped
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, data: bytes | bytearray) -> None:
        """Add bytes at the end."""
        size = len(data)
        blocks = self._blocks
        self._length += size
        room = _BLOCK - len(blocks[-1]) if blocks else 0
        if not size:
            return
        if size <= room:
            blocks[-1] += data
            return
        with memoryview(data) as view:
            if room:
                blocks[-1] += view[:room]
            for start in range(room, size, _BLOCK):
                blocks.append(bytearray(view[start : start + _BLOCK]))

    def slice(self, first: int, last: int) -> bytes:
        """Return the bytes [first, last) counted from the front; both lie within the queue."""
        if first >= last:
            return b""
        first += self._skipped
        last += self._skipped
        place = first >> _SHIFT
        if place == (last - 1) >> _SHIFT:
            with memoryview(self._blocks[place]) as view:
                return bytes(view[first - (place << _SHIFT) : last - (place << _SHIFT)])
        parts = []
        while first < last:
            place = first >> _SHIFT
            end = min(last, (place + 1) << _SHIFT)
            parts.append(self._blocks[place][first - (place << _SHIFT) : end - (place << _SHIFT)])
            first = end
        return b"".join(parts)

    def drop(self, size: int) -> None:
        """Drop up to `size` bytes from the front."""
        size = min(size, self._length)
        self._length -= size
        self._skipped += size
        if not self._length:
            self.clear()
        elif gone := self._skipped >> _SHIFT:
            del self._blocks[:gone]
            self._skipped -= gone << _SHIFT

    def take(self, size: int) -> bytes:
        """Return up to `size` bytes from the front, and drop them."""
        data = self.slice(0, min(size, self._length))
        self.drop(len(data))
        return data

    def clear(self) -> None:
        """Drop everything."""
        self._blocks.clear()
        self._skipped = self._length = 0
