"""What is for a device at a ring: a `FrameSink` that writes slots, and the reading of what the device wrote.

Plain frames are written and read by the compiled plane; frames that carry something are written here. This module
imports compiled code, so only an attached ring loads it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from itertools import groupby

from lamina_vswitch.domain.frames.metadata import load_of
from lamina_vswitch.domain.offload.columns import header_of
from lamina_vswitch.domain.offload.flow_hash import flow_hash
from lamina_vswitch.domain.port import ring_layout as layout
from lamina_vswitch.io.attachments.stream import Attachment
from lamina_vswitch.io.backends.backend import sorted_out
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.memory_ring import MemoryRing, RingSink

_SLOT_HEAD = struct.Struct("<I12x20s28x32s32x")


class DeviceRing(RingSink):
    """One queue towards a device. `told` hears of the link and of the port's end, `corrupt` of a broken ring."""

    def __init__(
        self, ring: MemoryRing, told: Attachment, wake: Callable[[], None], corrupt: Callable[[], None]
    ) -> None:
        super().__init__(ring, wake, corrupt, told.link_changed)
        self._told = told

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Write the frames that fit, and wake the device if it sleeps; return how many fitted."""
        longest = self.ring.geometry.frame_bytes
        fitting = [frame for frame in frames if len(frame) <= longest]
        taken = self._write(fitting)
        if taken is None:
            self.corrupt()
            return 0
        if self.ring.must_wake():
            self.wake()
        too_long = [frame for frame in frames if len(frame) > longest] if len(fitting) < len(frames) else []
        if too_long:
            _add64(self.ring.address + layout.DROPPED, len(too_long))
        return sorted_out(frames, fitting[:taken], fitting[taken:] + too_long)

    def removed(self) -> None:
        """End the stream: its port is gone."""
        super().removed()
        self._told.removed()

    def _write(self, frames: list[bytes]) -> int | None:
        """Write frames in order, the plain ones by the plane; None when the ring is corrupt."""
        written = 0
        for plain, each in groupby(frames, lambda frame: type(frame) is bytes):
            run = list(each)
            taken = self.ring.push(Burst.of(run)) if plain else self._write_laden(run)
            if taken is None:
                return None
            written += taken
            if taken < len(run):
                lost = len(frames) - written - (len(run) - taken if plain else 0)
                _add64(self.ring.address + layout.DROPPED, lost)
                break
        return written

    def _write_laden(self, frames: list[bytes]) -> int | None:
        used = self.ring.waiting()
        if used is None:
            return None
        address, sizes = self.ring.address, self.ring.geometry
        index = ctypes.c_uint32.from_address(address + layout.PRODUCER)
        first, count = index.value, min(len(frames), sizes.slots - used)
        for number, frame in enumerate(frames[:count]):
            offload, record = load_of(frame)
            slot = address + layout.FIRST_SLOT + ((first + number) & (sizes.slots - 1)) * sizes.slot_bytes
            head = _SLOT_HEAD.pack(len(frame), header_of(offload), record or b"")
            ctypes.memmove(slot, head, layout.FRAME)
            ctypes.memmove(slot + layout.FRAME, bytes(frame), len(frame))
        # x86 keeps stores in order, and this is one store of four bytes: the slots are there when the index is
        index.value = (first + count) & layout.INDEX_MASK
        return count


class DeviceRings:
    """Several queues towards a device: each flow goes to one of them."""

    def __init__(self, rings: Sequence[DeviceRing]) -> None:
        self._rings = rings

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Write each frame to the queue of its flow; return how many fitted."""
        queues: list[list[bytes]] = [[] for _ in self._rings]
        for frame in frames:
            queues[flow_hash(frame) % len(queues)].append(frame)
        taken: list[bytes] = []
        lost: list[bytes] = []
        for ring, queue in zip(self._rings, queues, strict=True):
            if queue:
                count = ring.deliver(queue)
                taken += queue[:count]
                lost += queue[count:]
        return sorted_out(frames, taken, lost)

    def link_changed(self, up: bool) -> None:
        """Tell the device once."""
        self._rings[0].link_changed(up)

    def removed(self) -> None:
        """End the stream once."""
        self._rings[0].removed()


def _add64(address: int, count: int) -> None:
    word = ctypes.c_uint64.from_address(address)
    word.value += count
