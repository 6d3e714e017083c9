"""What a capture or a mirror wants to see: ranges of its numbers, and the choice."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_vswitch.domain.capture.observer import Direction

SNAP_BYTES = (64, 65535)
FRAME_LIMIT = (0, 10**12)
BUFFER_BYTES = (64 << 10, 64 << 20)
DEFAULT_BUFFER_BYTES = 4 << 20
MAX_CAPTURE_PORTS = 256
MAX_CAPTURES = 64


@dataclass(frozen=True, slots=True)
class Selection:
    """Which frames of a switch are captured.

    `switch` and `ports` are resource names; no ports means all of them. `direction` None means both. `drops` adds what
    the switch drops, `only_drops` leaves out the rest. `snap_bytes` 64 to 65535, or 0 for whole frames; `frame_limit` 0
    to 10^12 and `duration_ns`, 0 for none; `buffer_bytes` 64 KiB to 64 MiB may wait for the reader.
    """

    switch: str
    ports: frozenset[str] = frozenset()
    direction: Direction | None = None
    drops: bool = False
    only_drops: bool = False
    filter: str = ""
    snap_bytes: int = 0
    frame_limit: int = 0
    duration_ns: int = 0
    buffer_bytes: int = DEFAULT_BUFFER_BYTES

    def chooses(self, port: str, direction: Direction) -> bool:
        """Tell whether frames that go this way at a port are wanted."""
        if self.direction not in (None, direction):
            return False
        return self.looks_at(port)

    def looks_at(self, port: str) -> bool:
        """Tell whether a port is one of those that are captured."""
        return port in self.ports if self.ports else port.startswith(f"{self.switch}/ports/")
