"""Ports at the kernel's devices, from the outside of the plane: what comes in by one, and the wire by which it sends.

A lane is what a backend has once the plane is loaded: it brings a burst at a time, and lets the plane send by itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from lamina_vswitch.domain.backend.vnet import from_kernel, to_kernel
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.compiled import intake, layout, wires
from lamina_vswitch.plane.compiled.unfinished import HEAD_BYTES

MOST = 1024
"""Frames of a burst at most."""
_ARENA_BYTES = 2 << 20
_LENGTH_MASK = layout.LADEN - 1
_VECTOR, _VECTORS = 2, 3  # words of a message: address of its vector, and the vector's length


class KernelBurst(Burst):
    """Frames that the kernel gave, each with its header before it; `tags` are those that it took off."""

    private = True

    def __init__(self, places: Any, address: int, tags: Any, memory: object) -> None:
        self.places, self.address = places, address  # numpy takes a microsecond to say it
        self._tags, self._memory = tags, memory

    def frame(self, index: int) -> bytes:
        """Return a copy of one frame, with its load and its tag."""
        return _copied(int(self.places[index, 0]), int(self.places[index, 1]), int(self._tags[index]))

    def frames(self) -> list[bytes]:
        """Return copies of all frames."""
        rows, tags = self.places.tolist(), self._tags[: len(self)].tolist()
        return [_copied(address, length, tag) for (address, length), tag in zip(rows, tags, strict=True)]


def _copied(address: int, length: int, tag: int) -> bytes:
    whole = ctypes.string_at(address - HEAD_BYTES, (length & _LENGTH_MASK) + HEAD_BYTES)
    beside = (tag & 0xFFFFFFFF).to_bytes(4, "big") if tag & intake.TAGGED else b""
    return from_kernel(whole[:HEAD_BYTES], whole[HEAD_BYTES:], beside)


class Wire:
    """The way out of one port by a descriptor, for the plane and for frames of Python.

    A socket may have another one beside it, `bare_file`, that takes frames without the kernel's header.
    """

    def __init__(self, file: int, *, is_socket: bool, bare_file: int = -1) -> None:
        self._words: Any = np.zeros(wires.WIRE_WORDS, np.int64)
        self._list: Any = np.zeros((MOST, 2), np.int64)
        self._messages: Any = np.zeros((MOST, 1 << (wires.MESSAGE_SHIFT - 3)), np.int64)
        self._messages[:, _VECTOR] = self._list.ctypes.data + np.arange(MOST) * (1 << wires.LIST_SHIFT)
        self._messages[:, _VECTORS] = 1
        self._numbers = memoryview(self._words.data)
        self._numbers[wires.FILE >> 3], self._numbers[wires.IS_SOCKET >> 3] = file, is_socket
        self._numbers[wires.LIST >> 3] = self._list.ctypes.data
        self._numbers[wires.MESSAGES >> 3] = self._messages.ctypes.data
        self._numbers[wires.BARE_FILE >> 3] = bare_file
        self._bare: Any = self._messages.view(np.int32)[:, wires.IS_BARE >> 2]
        self.address: int = self._words.ctypes.data

    def set_waits(self, waits: bool) -> None:
        """Note whether frames wait elsewhere, so that none passes them."""
        self._numbers[wires.WAITS >> 3] = waits

    def send(self, frames: Sequence[bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Send frames; return those that went, those that the kernel has no room for now, and those that failed."""
        went: list[bytes] = []
        failed: list[bytes] = []
        for first in range(0, len(frames), MOST):
            some = frames[first : first + MOST]
            parts = [part for frame in some for part in (to_kernel(frame), frame)]
            data: Any = np.frombuffer(b"".join(parts), np.uint8)
            sizes = np.fromiter(map(len, some), np.int64, len(some)) + HEAD_BYTES
            self._list[: len(some), 0] = data.ctypes.data + np.cumsum(sizes) - sizes
            self._list[: len(some), 1] = sizes
            self._bare[: len(some)] = 0
            self._numbers[wires.POSTED >> 3] = len(some)
            wires.flush(self.address)
            gone = self._numbers[wires.GONE >> 3]
            for frame, size in zip(some, self._list[:gone, 1].tolist(), strict=False):
                (went if size > 0 else failed).append(frame)
            self._numbers[wires.POSTED >> 3] = 0
            if gone < len(some):
                return went, list(frames[first + gone :]), failed
        return went, [], failed

    def settle(self) -> tuple[list[bytes], list[bytes]]:
        """Return copies of what is left in the list, and of what failed, after a run; the list is empty then."""
        posted, gone = self._numbers[wires.POSTED >> 3], self._numbers[wires.GONE >> 3]
        heads = (1 - self._bare[:posted]) * HEAD_BYTES
        places = zip(self._list[:posted].tolist(), heads.tolist(), strict=True)
        rows = [(at + head, size, head) for (at, size), head in places]
        self._numbers[wires.POSTED >> 3] = 0
        failed = [_copied(at, -size - head, 0) for at, size, head in rows[:gone] if size < 0]
        return [_copied(at, size - head, 0) for at, size, head in rows[gone:]], failed


class Lane:
    """The way in of one port by a descriptor: `next` finds a burst, which has to be switched before `end`."""

    def __init__(self, file: int) -> None:
        self._words: Any = np.zeros(intake.INTAKE_WORDS, np.int64)
        self._places: Any = np.zeros((MOST, 2), np.int64)
        self._tags: Any = np.zeros(MOST, np.int64)
        self._arena: Any = np.empty(_ARENA_BYTES, np.uint8)
        self._numbers = memoryview(self._words.data)
        self._address: int = self._words.ctypes.data
        for word, value in (
            (intake.FILE, file),
            (intake.MOST, MOST),
            (intake.ARENA, self._arena.ctypes.data),
            (intake.ARENA_BYTES, _ARENA_BYTES),
            (intake.PLACES, self._places.ctypes.data),
            (intake.TAGS, self._tags.ctypes.data),
        ):
            self._numbers[word >> 3] = value

    @property
    def most(self) -> int:
        """Most frames of a burst: one that has fewer was the last for now."""
        return self._numbers[intake.MOST >> 3]

    @property
    def error(self) -> int:
        """The error that was met: the one that ended the reading of a device, or one of the socket; 0 for none."""
        return self._numbers[intake.ERROR >> 3]

    def _burst(self) -> KernelBurst:
        found = self._numbers[intake.FRAMES >> 3]
        return KernelBurst(self._places[:found], self._numbers[intake.PLACES >> 3], self._tags, self._arena)


class PacketLane(Lane):
    """The receiving ring of a packet socket: `slots` slots of `slot_bytes` in `memory`, the next one being `first`."""

    def __init__(self, file: int, memory: Any, slot_bytes: int, slots: int, first: int) -> None:
        super().__init__(file)
        self._ring: Any = np.frombuffer(memory, np.uint8)
        for word, value in (
            (intake.RING, self._ring.ctypes.data),
            (intake.SLOT_BYTES, slot_bytes),
            (intake.SLOTS, slots),
            (intake.NEXT, first),
            (intake.MOST, min(MOST, slots)),  # a slot is walked once before it is given back
        ):
            self._numbers[word >> 3] = value

    def next(self, mtu_bytes: int) -> KernelBurst:
        """Return the frames that came; `cut` and `has_lost` tell of those that did not."""
        self._numbers[intake.MTU >> 3] = mtu_bytes
        intake.walk(self._address)
        return self._burst()

    @property
    def cut(self) -> int:
        """How many frames the kernel cut, as they were longer than a slot and could not wait."""
        return self._numbers[intake.CUT >> 3]

    @property
    def has_lost(self) -> bool:
        """Whether the kernel had no room for some frames."""
        return bool(self._numbers[intake.LOST >> 3])

    @property
    def walked(self) -> int:
        """How many slots the last burst took, as long as they are not given back."""
        return self._numbers[intake.USED >> 3]

    def end(self) -> None:
        """Give the slots back to the kernel."""
        intake.give_back(self._address)

    def close(self) -> None:
        """Let go of the memory, which can be unmapped then."""
        del self._ring


class TapLane(Lane):
    """One queue of a TAP device."""

    def next(self, mtu_bytes: int) -> KernelBurst:
        """Return the frames that the kernel sent."""
        self._numbers[intake.MTU >> 3] = mtu_bytes
        intake.read(self._address)
        return self._burst()
