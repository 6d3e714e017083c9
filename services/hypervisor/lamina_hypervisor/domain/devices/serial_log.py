"""What a guest wrote to its serial port: the last bytes, with offsets that count from the power-on. Pure."""

from __future__ import annotations

from lamina_kit.errors import OutOfRange

KEPT = 1024 * 1024
"""Bytes that are kept."""

PIECE = 64 * 1024
"""Most bytes of one piece."""


class SerialLog:
    """A bounded log. `end` is the number of bytes ever appended."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._bytes = bytearray()
        self.end = 0

    @property
    def start(self) -> int:
        """Offset of the oldest byte that is kept."""
        return self.end - len(self._bytes)

    def append(self, data: bytes) -> None:
        """Appends bytes and forgets the oldest beyond what is kept."""
        self._bytes += data
        self.end += len(data)
        if len(self._bytes) > self._kept:
            del self._bytes[: len(self._bytes) - self._kept]

    def piece(self, offset: int) -> tuple[int, bytes]:
        """Returns (offset, bytes) of at most `PIECE` bytes from `offset`, or from the oldest kept if that is later.

        At the end the bytes are empty. An offset beyond the end is `OutOfRange` `SERIAL_OFFSET`.
        """
        if not 0 <= offset <= self.end:
            raise OutOfRange(
                f"Serial offset {offset} is not within 0 to {self.end}.",
                reason="SERIAL_OFFSET",
                next_step=f"Start at {self.end} to read what comes next.",
                end_offset=self.end,
            )
        first = max(offset, self.start)
        at = first - self.start
        return first, bytes(self._bytes[at : at + PIECE])
