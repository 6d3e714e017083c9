"""The legs of ports in the kernel: for each VLAN that a port carries a pair of devices, one end a port of its bridge.

See `bpf_trunk.py` for what the programs do. The second end of a pair serves only to give the first one a carrier. Maps
and programs live as long as the devices that they are attached to; this object keeps the maps to change them.

Source: veth(4); net/core/link_watch.c of Linux 6.18.
"""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from lamina_vswitch.ebpf.instructions import Program, assemble
from lamina_vswitch.ebpf.programs import ArrayMap, load_classifier
from lamina_vswitch.engines.linux.bpf_trunk import VLANS, Tags, detour, joiner, splitter
from lamina_vswitch.engines.linux.links import enslave, index_of, remove
from lamina_vswitch.engines.linux.netlink import Netlink
from lamina_vswitch.engines.linux.traffic_control import (
    EGRESS,
    INGRESS,
    let_no_programs_run,
    let_programs_run,
    run_program,
)
from lamina_vswitch.engines.linux.veth import add_pair, set_up

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
    counts: ArrayMap | None
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

    def make(self, slot: int, index: int, tags: Tags) -> None:
        """Let the device with an index, which no bridge has, read tags in this way; it has no legs yet.

        Raises FailedPrecondition `BPF_REFUSED`, Unavailable `KERNEL_REFUSED`.
        """
        with ExitStack() as made:
            places, refused = (made.enter_context(closing(ArrayMap(*each))) for each in ((4, VLANS), (8, 1)))
            counts = made.enter_context(closing(ArrayMap(_COUNTS.size, VLANS))) if tags.is_trunk else None
            trunk = _Trunk(index, tags, places, refused, counts, index)
            let_programs_run(self._netlink, index)
            made.callback(let_no_programs_run, self._netlink, index)
            self._split(trunk)
            made.pop_all()
        self._trunks[slot] = trunk

    def enter_by(self, slot: int, pair: tuple[int, int] | None) -> None:
        """Have frames go through a pair of devices before they are split: out at the first, in at the second.

        None: they go straight again. The pair is new when it is given, and removed by the caller afterwards.
        """
        trunk = self._trunks[slot]
        if pair is None:
            trunk.entry = trunk.index
            self._split(trunk)
            return
        let_programs_run(self._netlink, pair[1])
        trunk.entry = pair[1]
        self._split(trunk)
        self._attach(trunk.index, INGRESS, detour(pair[0]), "lamina-detour")

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
            self._attach(leg.index, EGRESS, joiner(trunk.tags, vlan, trunk.index, _descriptor(trunk)), "lamina-joiner")
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
        trunk = self._trunks.get(slot)
        return {} if trunk is None else dict(sorted(trunk.legs.items()))

    def refused(self, slot: int) -> int:
        """Return how many frames came in at a trunk in no VLAN of it; 0 when the slot has no trunk."""
        trunk = self._trunks.get(slot)
        return 0 if trunk is None else trunk.refused[0]

    def counts(self, slot: int) -> dict[int, tuple[int, int, int, int]]:
        """Return what went through each VLAN of a trunk: frames and bytes that came in, frames and bytes that left.

        Nothing for an access port, whose device counts for its VLAN.
        """
        trunk = self._trunks.get(slot)
        if trunk is None or trunk.counts is None:
            return {}
        found = {}
        for vlan in sorted(trunk.carried):
            found[vlan] = _COUNTS.unpack(trunk.counts[vlan].to_bytes(_COUNTS.size, "little"))
        return found

    def close(self) -> None:
        """Let go of the maps; the devices go with the namespace."""
        for trunk in self._trunks.values():
            _close_maps(trunk)
        self._trunks.clear()

    def copy_refused(self, slot: int, watch: int) -> None:
        """Have copies of frames in no VLAN of a trunk go to the device with an index; 0: no more."""
        self._trunks[slot].watch = watch
        self._split(self._trunks[slot])

    def _split(self, trunk: _Trunk) -> None:
        program = splitter(
            trunk.tags, trunk.places.descriptor, trunk.refused.descriptor, _descriptor(trunk), trunk.watch
        )
        self._attach(trunk.entry, INGRESS, program, "lamina-splitter")

    def _attach(self, index: int, end: int, program: Program, name: str) -> None:
        descriptor = load_classifier(assemble(program))
        try:
            run_program(self._netlink, index, end, descriptor, name)
        finally:
            os.close(descriptor)


def _descriptor(trunk: _Trunk) -> int | None:
    return None if trunk.counts is None else trunk.counts.descriptor


def _close_maps(trunk: _Trunk) -> None:
    trunk.places.close()
    trunk.refused.close()
    if trunk.counts is not None:
        trunk.counts.close()
