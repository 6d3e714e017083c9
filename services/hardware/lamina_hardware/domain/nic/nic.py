"""A network interface: rings in RAM on one side, a wire on the other.

                        ┌────────────── receive ─────────────┐
    wire ── frames ──►  │ filter → spread → join → ring, DMA  │ ──► interrupt, moderated
                        └─────────────────────────────────────┘
                        ┌────────────── transmit ────────────┐
    wire ◄── frames ──  │ tag, checksum, cut ◄─ ring, DMA     │ ◄── doorbell
                        └─────────────────────────────────────┘

Pure: time, memory and the wire come through `NicPorts`. What the driver writes into RAM is hostile: a ring that cannot
be read, or says nonsense, stops, says why, and touches nothing else.

Source: Intel 82599 datasheet 331520.
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina_hardware.domain.nic import receive as inward
from lamina_hardware.domain.nic import transmit as outward
from lamina_hardware.domain.nic.counters import NicCounters
from lamina_hardware.domain.nic.ports import NicPorts
from lamina_hardware.domain.nic.ring import TAIL_OUTSIDE_RING, Ring
from lamina_hardware.domain.nic.settings import Drop, Settings


class Nic:
    """One NIC. Its rings exist from `configure` to the next `configure` or `reset`."""

    def __init__(self, mac: bytes, ports: NicPorts) -> None:
        self._factory = Settings(mac)
        self.settings = self._factory
        self.ports = ports
        self.counters = NicCounters()
        self.rings: dict[int, Ring] = {}
        self.has_carrier = False
        self._life = 0

    @property
    def is_link_up(self) -> bool:
        """Whether frames pass: a wire that carries, and a driver that wants it."""
        return self.has_carrier and self.settings.admin_up

    def reset(self) -> None:
        """Brings the NIC into its state after power-on; the carrier stays, and so do counters."""
        self._drop_held()
        self.rings = {}
        self.settings = self._factory
        self._life += 1

    def configure(self, rings: Sequence[Ring]) -> None:
        """Replaces the rings; held-back frames of the old ones are gone, and counted."""
        self._drop_held()
        self.rings = {ring.number: ring for ring in sorted(rings, key=lambda ring: ring.number)}
        self._life += 1

    def change(self, settings: Settings) -> None:
        """Takes new settings; they hold for frames that come after: what is held back goes before them."""
        was_up = self.is_link_up
        self._deliver_held()
        self.settings = settings
        self._link_changed(was_up)

    def carrier(self, has_carrier: bool) -> None:
        """Notes that the wire carries, or no longer."""
        was_up = self.is_link_up
        self._deliver_held()
        self.has_carrier = has_carrier
        self._link_changed(was_up)

    def doorbell(self, queue: int) -> None:
        """Notes that there may be work in a queue; an unknown one is nobody's."""
        ring = self.rings.get(queue)
        if ring is not None and not ring.stop_reason and self.look(ring) and not ring.is_receive:
            outward.transmit(self, ring)

    def look(self, ring: Ring) -> bool:
        """Takes over how far the driver has filled a ring; returns whether that lies in it. If not, the ring stops."""
        tail = self.ports.tail(ring.number)
        if not 0 <= tail < ring.size:
            self.stop(ring, TAIL_OUTSIDE_RING, f"tail {tail} of {ring.size}")
            return False
        ring.tail = tail
        return True

    def receive(self, frames: Sequence[bytes]) -> None:
        """Takes frames from the wire that arrive at one instant."""
        inward.receive(self, frames)

    def receive_damaged(self, count: int = 1) -> None:
        """Counts frames whose check sequence was wrong."""
        self.counters.drop(Drop.DAMAGED if self.is_link_up else Drop.LINK_DOWN, count)

    def resume(self, ring: Ring) -> None:
        """Goes on sending from a ring, if it is still there."""
        if self.rings.get(ring.number) is ring and not ring.stop_reason and self.look(ring):
            outward.transmit(self, ring)

    def stop(self, ring: Ring, reason: str, detail: str = "") -> None:
        """Has a ring stand still until it is configured anew."""
        ring.stop_reason = reason
        self.ports.stopped(ring.number, f"{reason}: {detail}" if detail else reason)

    def notify(self, ring: Ring, frames: int) -> None:
        """Interrupts for what was done in a ring, now or when moderation allows it."""
        now = self.ports.now_ns()
        when = ring.moderation.note(frames, now)
        if when is None:
            return
        if when <= now:
            self._interrupt(ring)
        else:
            self._later(ring, when)

    def hold_back(self, ring: Ring) -> None:
        """Sees to it that what coalescing holds back is delivered when moderation allows the next interrupt."""
        moderation = ring.moderation
        if not moderation.armed:
            moderation.armed = True
            now = self.ports.now_ns()
            self._later(ring, max(now, moderation.last_ns) + moderation.interval_ns)

    def _later(self, ring: Ring, when: int) -> None:
        life = self._life

        def due() -> None:
            if self._life != life or self.rings.get(ring.number) is not ring:
                return
            placed = inward.flush(self, ring)
            ring.moderation.pending += placed
            now = self.ports.now_ns()
            interrupt_at = ring.moderation.due(now)
            if interrupt_at is None:
                return
            if interrupt_at <= now:
                self._interrupt(ring)
            else:
                self._later(ring, interrupt_at)

        self.ports.call_at(when, due)

    def _interrupt(self, ring: Ring) -> None:
        self.counters.interrupts += 1
        self.counters.moderated_interrupts += ring.moderation.fired(self.ports.now_ns())
        self.ports.interrupt(ring.vector, ring.number)

    def _deliver_held(self) -> None:
        for ring in list(self.rings.values()):
            if placed := inward.flush(self, ring):
                self.notify(ring, placed)

    def _drop_held(self) -> None:
        for ring in self.rings.values():
            if held := ring.held_frames:
                self.counters.drop(Drop.NOT_DRIVEN, held)

    def _link_changed(self, was_up: bool) -> None:
        if self.is_link_up and not was_up:
            for ring in list(self.rings.values()):
                if not ring.is_receive:
                    self.resume(ring)
