"""One port at the bypass: what its backend may do there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from lamina_vswitch.ebpf import bypass as code
from lamina_vswitch.io.backends.bypass import Bypass
from lamina_vswitch.io.backends.bypass_member import Member


class Junction:
    """One port at the bypass, for its backend."""

    def __init__(self, bypass: Bypass, slot: int, member: Member) -> None:
        self._bypass, self._slot, self._member = bypass, slot, member
        self._is_started = False

    @property
    def filter(self) -> int:
        """Descriptor of the filter for the packet socket."""
        return self._member.filter

    def start(self) -> None:
        """Begin to hear of the device."""
        self._is_started, descriptor = True, self._member.device.descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._bypass.look, self._member)

    def begin(self) -> None:
        """Get ready for frames that are about to be switched."""
        self._bypass.catch_up()

    def learn(self, heads: Iterable[bytes], now_ns: int) -> None:
        """Learn from frames that were switched."""
        self._bypass.learn(self._slot, heads, now_ns)

    def dealt_with(self, frames: int) -> None:
        """Count frames of the socket that were switched, or for which its ring had no room."""
        dealt = self._bypass.word(self._member, code.DEALT) + frames
        self._bypass.set_word(self._member, code.DEALT, dealt)
        if self.drains and dealt >= self._bypass.word(self._member, code.HANDED):
            self._bypass.set_word(self._member, code.DRAINS, 0)

    @property
    def drains(self) -> bool:
        """Whether the ring is being emptied."""
        return bool(self._bypass.word(self._member, code.DRAINS))

    def drain(self) -> None:
        """Have the ring emptied, which is full: flows that are too fast for it lose frames, and go on in the kernel."""
        if self._bypass.word(self._member, code.DOMAIN):
            self._bypass.set_word(self._member, code.DRAINS, 1)

    def lost(self) -> int:
        """Return how many frames that cost since the last time."""
        return self._bypass.take_lost(self._member)

    def set_waits(self, waits: bool) -> None:
        """Note whether frames wait at the way out."""
        self._bypass.set_waits(self._member, waits)

    def close(self) -> None:
        """Leave. Idempotent."""
        if self._is_started:
            asyncio.get_running_loop().remove_reader(self._member.device.descriptor)
            self._is_started = False
        self._bypass.leave(self._slot, self._member)
