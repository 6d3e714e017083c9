"""One ring in memory, from the outside: a sink of the switch, and the other end for whoever is behind the port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lamina_kit.errors import InvalidArgument
from lamina_vswitch.domain.port.ring_layout import Geometry
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.compiled import rings


class MemoryRing:
    """The slots of one ring: `memory` (writable, kept alive) holds it from `offset` on, `geometry` tells its sizes.

    `records` says that somebody writes trace records into its slots; else the plane need not clear them.
    Raises InvalidArgument `RING_OUTSIDE_MEMORY` when the ring does not lie in the memory, or that cannot be written.
    """

    def __init__(self, memory: Any, offset: int, geometry: Geometry) -> None:
        data: Any = np.frombuffer(memory, np.uint8)
        if offset < 0 or offset + geometry.ring_bytes > data.size or not data.flags.writeable:
            raise InvalidArgument(
                f"A ring of {geometry.ring_bytes} bytes does not lie at {offset} of {data.size} bytes.",
                reason="RING_OUTSIDE_MEMORY",
                next_step="Map the whole file, to be written, and take the offset from its geometry.",
                ring=str(offset),
            )
        self._data = data
        self.geometry = geometry
        self.records = False
        self.address: int = data.ctypes.data + offset
        self._taken: Any = np.empty((geometry.slots, 2), np.int64)

    @classmethod
    def alone(cls, slots: int, slot_bytes: int) -> MemoryRing:
        """Return a ring in memory of its own, for a device in this process."""
        geometry = Geometry(1, slots, slot_bytes)
        return cls(np.zeros(geometry.ring_bytes, np.uint8), 0, geometry)

    def waiting(self) -> int | None:
        """Return how many frames are in it, or None when the peer broke its indices."""
        found = int(rings.filled(self.address, self.geometry.slots))
        return None if found == rings.CORRUPT else found

    def push(self, burst: Burst) -> int | None:
        """Write as many frames as fit, the first ones; return how many, or None when the ring is corrupt."""
        sizes = self.geometry
        taken = int(rings.fill(self.address, sizes.slots, sizes.slot_bytes, burst.places.ctypes.data, len(burst)))
        return None if taken == rings.CORRUPT else taken

    def peek(self, most: int) -> Burst | None:
        """Return up to `most` frames that wait, where they lie, or None when the ring is corrupt. Then `give_back`."""
        sizes, most = self.geometry, min(most, self.geometry.slots)
        found = int(rings.take(self.address, sizes.slots, sizes.slot_bytes, most, self._taken.ctypes.data))
        return None if found == rings.CORRUPT else Burst(self._taken[:found], self._data)

    def give_back(self, frames: int) -> None:
        """Free the slots of the first `frames` that wait."""
        rings.give_back(self.address, frames)

    def pop(self, most: int = 1 << 16) -> list[bytes] | None:
        """Take up to `most` frames out, or None when the ring is corrupt."""
        burst = self.peek(most)
        if burst is None:
            return None
        frames = burst.frames()
        self.give_back(len(frames))
        return frames

    def lie_down(self) -> int | None:
        """Say that the consumer sleeps; return how many frames wait after all, or None when the ring is corrupt."""
        found = int(rings.lie_down(self.address, self.geometry.slots))
        return None if found == rings.CORRUPT else found

    def must_wake(self) -> bool:
        """Return whether the consumer sleeps and has to be told, and note that it was."""
        return bool(rings.must_wake(self.address))


class RingSink:
    """A `FrameSink` whose frames go into a ring; the plane writes there itself.

    `wake` is called when the consumer sleeps, `corrupt` when it broke the ring, `link` with changes of the link; they
    return at once and never call the engine. Frames longer than a slot count as not fitting.
    """

    def __init__(
        self,
        ring: MemoryRing,
        wake: Callable[[], None] | None = None,
        corrupt: Callable[[], None] | None = None,
        link: Callable[[bool], None] | None = None,
    ) -> None:
        self.ring = ring
        self.wake = wake or _nothing
        self.corrupt = corrupt or _nothing
        self._link = link
        self.gone = False

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Write the frames that fit, and wake the consumer; return how many fitted."""
        taken = self.ring.push(Burst.of(frames))
        if taken is None:
            self.corrupt()
            return 0
        if self.ring.must_wake():
            self.wake()
        return taken

    def link_changed(self, up: bool) -> None:
        """Pass it on."""
        if self._link is not None:
            self._link(up)

    def removed(self) -> None:
        """Note that the port is gone."""
        self.gone = True


def _nothing() -> None:
    """Does nothing: nobody asked to be told."""
