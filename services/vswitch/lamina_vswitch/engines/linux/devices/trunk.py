"""The legs of trunks in the kernel: for each VLAN that a port carries a pair of devices, one end a port of its bridge.

See `engines/linux/bpf/trunk.py` for what the programs do. The second end of a pair serves only to give the first one a
carrier. Maps and programs live as long as the devices that they are attached to; this object keeps the maps to change
them.

Source: veth(4); net/core/link_watch.c of Linux 6.18.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from lamina_vswitch.ebpf.programs import ArrayMap
from lamina_vswitch.engines.linux.bpf import classifiers
from lamina_vswitch.engines.linux.bpf.trunk import VLANS, Tags, detour, joiner, splitter
from lamina_vswitch.engines.linux.netlink.links import enslave, index_of, remove
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.netlink.traffic_control import (
    EGRESS,
    INGRESS,
    let_no_programs_run,
    let_programs_run,
)
from lamina_vswitch.engines.linux.netlink.veth import add_pair, set_up

_COUNTS = struct.Struct("<QQQQ")
"""Of a VLAN: frames and bytes in, frames and bytes out; see `bpf_trunk.FRAMES_IN`."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg: name and index of the device that is a port of the bridge."""

    device: str
    index: int


@dataclass(slots=True)
class _Trunk:
    index: int
    tags: Tags
    places: ArrayMap
    refused: ArrayMap
    counts: ArrayMap
    entry: int
    watch: int = 0
    legs: dict[int, Leg] = field(default_factory=dict)
    entered: set[int] = field(default_factory=set)
    carried: set[int] = field(default_factory=set)


class TrunkLegs:
    """The trunks of an engine by the slots of their ports."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._trunks: dict[int, _Trunk] = {}

    def __contains__(self, slot: int) -> bool:
        return slot in self._trunks

    def make(self, slot: int, index: int, tags: Tags) -> None:
        """Let the device with an index, which no bridge has, read tags in this way; it has no legs yet.

        Raises FailedPrecondition `BPF_REFUSED`, Unavailable `KERNEL_REFUSED`.
        """
        with ExitStack() as made:
            places, refused = (made.enter_context(closing(ArrayMap(*each))) for each in ((4, VLANS), (8, 1)))
            counts = made.enter_context(closing(ArrayMap(_COUNTS.size, VLANS)))
            trunk = _Trunk(index, tags, places, refused, counts, index)
            let_programs_run(self._netlink, index)
            made.callback(let_no_programs_run, self._netlink, index)
            self._split(trunk, index, 0)
            made.pop_all()
        self._trunks[slot] = trunk

    def enter_by(self, slot: int, pair: tuple[int, int] | None) -> None:
        """Have frames go through a pair of devices before they are split: out at the first, in at the second.

        None: they go straight again. The pair is new when it is given, and removed by the caller afterwards.
        """
        trunk = self._trunks[slot]
        if pair is None:
            self._split(trunk, trunk.index, trunk.watch)
            trunk.entry = trunk.index
            return
        let_programs_run(self._netlink, pair[1])
        self._split(trunk, pair[1], trunk.watch)
        classifiers.attach(self._netlink, trunk.index, INGRESS, detour(pair[0]), "lamina-detour")
        trunk.entry = pair[1]

    def add_leg(self, slot: int, vlan: int, bridge: int, mtu_bytes: int) -> Leg:
        """Let a trunk carry a VLAN, whose bridge has this index; return the leg. One that it has stays.

        Frames leave by a new one; they come in when it is `let_in`.
        """
        trunk = self._trunks[slot]
        if vlan in trunk.legs:
            return trunk.legs[vlan]
        name, peer = f"t{slot}v{vlan}", f"t{slot}v{vlan}x"
        add_pair(self._netlink, name, peer, mtu_bytes)
        leg = Leg(name, index_of(self._netlink, name))
        try:
            set_up(self._netlink, index_of(self._netlink, peer), up=True)
            let_programs_run(self._netlink, leg.index)
            classifiers.attach(
                self._netlink,
                leg.index,
                EGRESS,
                joiner(trunk.tags, vlan, trunk.index, trunk.counts.descriptor),
                "lamina-joiner",
            )
            enslave(self._netlink, leg.index, bridge, mtu_bytes)
            index_of(self._netlink, name)  # asked for a link, the kernel notices its carrier now, not a second later
        except BaseException:
            remove(self._netlink, leg.index)
            raise
        trunk.legs[vlan] = leg
        trunk.carried.add(vlan)
        return leg

    def let_in(self, slot: int) -> None:
        """Let frames come in at all legs of a trunk, now that its rules hold."""
        trunk = self._trunks[slot]
        for vlan in sorted(trunk.legs.keys() - trunk.entered):
            trunk.places[vlan] = trunk.legs[vlan].index
            trunk.entered.add(vlan)

    def let_none_in(self, slot: int, vlan: int) -> None:
        """Let no frame come in at the leg of a VLAN any more."""
        trunk = self._trunks[slot]
        if vlan in trunk.entered:
            trunk.places[vlan] = 0
            trunk.entered.remove(vlan)

    def remove_leg(self, slot: int, vlan: int) -> None:
        """Let a trunk carry a VLAN no more; nothing happens when it does not."""
        trunk = self._trunks[slot]
        self.let_none_in(slot, vlan)
        leg = trunk.legs.pop(vlan, None)
        if leg is not None:
            remove(self._netlink, leg.index)

    def remove(self, slot: int) -> None:
        """Let a device read no tags any more. Raises Unavailable `KERNEL_REFUSED` when it is gone, after all else."""
        for vlan in list(self._trunks[slot].legs):
            self.remove_leg(slot, vlan)
        trunk = self._trunks.pop(slot)
        _close_maps(trunk)
        let_no_programs_run(self._netlink, trunk.index)

    def legs(self, slot: int) -> dict[int, Leg]:
        """Return the legs of a trunk by VLAN, ordered; nothing when the slot has no trunk."""
        return dict(sorted(self._trunks[slot].legs.items())) if slot in self._trunks else {}

    def filtered(self, slot: int) -> tuple[str, ...]:
        """Return the devices at which the rules of a trunk are: its legs."""
        return tuple(leg.device for leg in self.legs(slot).values())

    def refused(self, slot: int) -> int:
        """Return how many frames came in at a trunk in no VLAN of it; 0 when the slot has no trunk."""
        return self._trunks[slot].refused[0] if slot in self._trunks else 0

    def counts(self, slot: int) -> dict[int, tuple[int, int, int, int]]:
        """Return what went through each VLAN of a trunk: frames and bytes that came in, frames and bytes that left.

        Nothing when the slot has no trunk.
        """
        if slot not in self._trunks:
            return {}
        trunk = self._trunks[slot]
        numbers = ((vlan, trunk.counts[vlan].to_bytes(_COUNTS.size, "little")) for vlan in sorted(trunk.carried))
        return {vlan: _COUNTS.unpack(each) for vlan, each in numbers}

    def close(self) -> None:
        """Let go of the maps; the devices go with the namespace."""
        for trunk in self._trunks.values():
            _close_maps(trunk)
        self._trunks.clear()

    def copy_refused(self, slot: int, watch: int) -> None:
        """Have copies of frames in no VLAN of a trunk go to the device with an index; 0: no more."""
        trunk = self._trunks[slot]
        self._split(trunk, trunk.entry, watch)
        trunk.watch = watch

    def _split(self, trunk: _Trunk, entry: int, watch: int) -> None:
        places, refused, counts = (each.descriptor for each in (trunk.places, trunk.refused, trunk.counts))
        program = splitter(trunk.tags, places, refused, counts, watch)
        classifiers.attach(self._netlink, entry, INGRESS, program, "lamina-splitter")


def _close_maps(trunk: _Trunk) -> None:
    for each in (trunk.places, trunk.refused, trunk.counts):
        each.close()
