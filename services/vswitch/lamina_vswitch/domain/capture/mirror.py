"""Mirrors: which frames are copied to another port, and the copying of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina_kit.names import Pattern
from lamina_vswitch.domain.capture.expression import compile_filter
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.switch.topology import Port
from lamina_vswitch.domain.switch.vlan_counters import vlan_of

MIRROR_NAME = Pattern("hosts/{host}/switches/{switch}/mirrors/{mirror}")
MAX_MIRRORS = 16
MAX_SOURCE_PORTS, MAX_SOURCE_GROUPS, MAX_SOURCE_VLANS = 256, 64, 64


@dataclass(frozen=True, slots=True)
class MirrorDefinition:
    """A mirror of a switch, as its user defines it; ports and port groups by their ids, in the order given.

    `direction` None means both; `snap_bytes` 64 to 65535, or 0 for whole frames; `drops` copies dropped frames too.
    """

    switch: str
    mirror: str
    ports: tuple[str, ...]
    groups: tuple[str, ...]
    vlans: tuple[int, ...]
    direction: Direction | None
    destination: str
    filter: str = ""
    snap_bytes: int = 0
    drops: bool = False


class Tap:
    """A mirror at work: `slots` are those of its source ports and groups now, `to` is the slot of its destination."""

    def __init__(self, definition: MirrorDefinition, switch: str, slots: frozenset[int], to: int) -> None:
        self.definition = definition
        self.slots = slots
        self.to = to
        self.copied = 0
        self._ports = f"{switch}/ports/"
        self._passes = compile_filter(definition.filter)

    def looks_at(self, port: Port) -> bool:
        """Tell whether frames at a port may be copied."""
        if port.slot in self.slots:
            return True
        return any(port.carries(vlan) for vlan in self.definition.vlans) and port.name.startswith(self._ports)

    def copies(self, port: Port, direction: Direction, frames: Sequence[bytes]) -> list[bytes]:
        """Return the copies that this mirror wants of frames that go this way at a port.

        The destination of a mirror is no source: what is there are copies, or frames of nobody.
        """
        wanted = self.definition
        if port.copies_only or wanted.direction not in (None, direction):
            return []
        chosen = frames
        if port.slot not in self.slots:
            chosen = self._of_vlans(port, frames)
        if wanted.filter:
            chosen = [frame for frame in chosen if self._passes(frame, len(frame))]
        longest = wanted.snap_bytes
        if not longest:
            return list(chosen)
        return [frame if len(frame) <= longest else frame[:longest] for frame in chosen]  # a piece has no load

    def _of_vlans(self, port: Port, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Return the frames that travel in one of the source VLANs at a port of the switch."""
        vlans = self.definition.vlans
        if not vlans or not port.name.startswith(self._ports):
            return []
        if port.policy.trunk is None:
            return frames if port.vlan in vlans else []
        return [frame for frame in frames if vlan_of(port, frame) in vlans]
