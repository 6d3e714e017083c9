"""The way out of ports: what stands between the switch's decision and the device's queue.

A hold keeps frames back; a filter keeps multicasts away that nobody wants; what the device does not take as it is gets
finished. On a host where no port has any of that now, it costs one test a batch (`busy`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_kit.errors import ResourceExhausted
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import any_laden, with_tag_within
from lamina_vswitch.domain.offload.egress import finished
from lamina_vswitch.domain.offload.features import PLAIN, Takes
from lamina_vswitch.domain.port.hold import Hold
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter
from lamina_vswitch.domain.switch.topology import Port
from lamina_vswitch.engines.interface import FrameSink, QueueingSink

Drop = Callable[[Port, DropReason, Sequence[bytes], int], None]

MAX_HELD_BYTES = 256 << 20
"""Bytes of all frames that the ports of a host hold together."""


class Egress:
    """Holds, filters and abilities of the ports of a host. `drop` counts frames at a port and tells of them."""

    def __init__(self, drop: Drop) -> None:
        self.busy = False
        self._drop = drop
        self._takes: dict[int, Takes] = {}
        self._holds: dict[int, Hold] = {}
        self._filters: set[int] = set()
        self._left_some = False

    def attached(self, slot: int, takes: Takes | None) -> None:
        """Note what a device takes; None: it knows of nothing but complete frames."""
        if takes is not None:
            self._takes[slot] = takes
            self._update()

    def detached(self, slot: int) -> None:
        """Forget what a device took and listened to; a hold stays. Unfinished frames of it may wait in shapers yet."""
        self._left_some |= self._takes.pop(slot, None) is not None
        self._filters.discard(slot)
        self._update()

    def settle(self, waiting: Callable[[], bool]) -> None:
        """Note that devices that went left no unfinished frames behind, unless some frames are `waiting`."""
        if self._left_some and not waiting():
            self._left_some = False
            self._update()

    def removed(self, slot: int) -> None:
        """Forget a port; who waits for its held frames learns that there are no more."""
        self.detached(slot)
        self.unhold(slot)

    def filtered(self, slot: int) -> None:
        """Note that a device listens to certain groups only."""
        self._filters.add(slot)
        self._update()

    def wanted(self, port: Port, frames: list[bytes]) -> list[bytes]:
        """Return the frames that the device's filter lets pass."""
        if port.listening is None or _sees_everything(port, port.listening):
            return frames
        return [frame for frame in frames if port.listening.wants(frame)]

    def ready(self, port: Port, frames: list[bytes], now_ns: int) -> list[bytes]:
        """Return what goes into the device's queue now: nothing for a held port."""
        hold = self._holds.get(port.slot)
        if hold is None:
            return self.finished(port, frames)
        taken = hold.push(frames, self._room())
        if taken < len(frames):
            self._drop(port, DropReason.HOLD_FULL, frames[taken:], now_ns)
        return []

    def finished(self, port: Port, frames: list[bytes]) -> list[bytes]:
        """Return frames as the device behind a port takes them."""
        takes = self._takes.get(port.slot, PLAIN)
        return finished(frames, takes) if takes.tag_beside or any_laden(frames) else frames

    def untouched(self, slot: int, tags: bool) -> bool:
        """Tell whether plain frames go to the device behind a port as they are, `tags` also those that have some."""
        return slot not in self._holds and not (tags and self._takes.get(slot, PLAIN).tag_beside)

    def traceable(self, port: Port, frames: Sequence[bytes]) -> list[bytes]:
        """Return what `finished` makes of frames, with their traces also for a device that takes none."""
        return finished(frames, self._takes.get(port.slot, PLAIN)._replace(records=True))

    # Holds

    def hold(self, slot: int) -> Hold | None:
        """Return the hold of a port."""
        return self._holds.get(slot)

    def quiesce(self, port: Port, sink: FrameSink | None, limit: int, now_ns: int) -> int:
        """Hold a port; return how many frames that had been queued for its device are held."""
        hold = self._holds.get(port.slot)
        if hold is not None:
            hold.limit = max(hold.limit, limit)
            return hold.withdrawn
        waiting = list(map(with_tag_within, sink.withdraw())) if isinstance(sink, QueueingSink) else []
        if sum(map(len, waiting)) > self._room() or not self._room():
            if sink is not None:
                sink.deliver(self.finished(port, waiting))
            raise _memory_full(port)
        hold = self._holds[port.slot] = Hold(limit)
        hold.withdrawn = hold.push(waiting, self._room())
        if hold.withdrawn < len(waiting):
            self._drop(port, DropReason.HOLD_FULL, waiting[hold.withdrawn :], now_ns)
        self._update()
        return hold.withdrawn

    def unhold(self, slot: int) -> None:
        """End a hold, if there is one; what it still holds is gone."""
        hold = self._holds.pop(slot, None)
        if hold is not None:
            hold.end()
        self._update()

    def _update(self) -> None:
        self.busy = bool(self._takes or self._filters or self._holds or self._left_some)

    def _room(self) -> int:
        return MAX_HELD_BYTES - sum(hold.size_bytes for hold in self._holds.values())


def _sees_everything(port: Port, listening: ReceiveFilter) -> bool:
    """Tell whether a device gets what it did not ask for: copies of a mirror, or all if it and its policy want that."""
    return port.copies_only or (listening.promiscuous and port.policy.security.promiscuous)


def _memory_full(port: Port) -> ResourceExhausted:
    return ResourceExhausted(
        f"The ports of this host hold {MAX_HELD_BYTES} bytes of frames already, so {port.name} cannot be held.",
        reason="HOLD_MEMORY_FULL",
        next_step="Go on without a hold, which loses what comes meanwhile, or wait until another port was released.",
        port=port.name,
    )
