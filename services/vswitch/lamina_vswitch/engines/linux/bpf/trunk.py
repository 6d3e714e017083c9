"""What the kernel does with frames of a trunk that is a device of it, as two programs of the traffic classifier.

This is for kernels whose bridges know no VLANs. A trunk has a *leg* for each VLAN that it carries: a device that is a
port of the bridge of that VLAN. The *splitter* runs where frames come in at the port's device: it takes the tag off and
hands the frame in at the leg of its VLAN. The *joiner* runs where frames leave at a leg: it puts the tag on and hands
the frame out at the port's device. An access port needs none of this (`engines/linux/bpf/access.py`).

Between the two, the rest of a tag (priority and drop eligibility, and whether it was a provider's) travels in the mark
of the packet, so that a frame which crosses from trunk to trunk keeps it. The number of its VLAN does too, for whoever
watches the port: the *labeller* runs where copies of frames leave for this process
(`engines/linux/devices/watches.py`).

Source: bpf-helpers(7) for the numbers of functions; `struct __sk_buff` of <linux/bpf.h> for the offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.ebpf.assembler import (
    STACK_END,
    Instruction,
    Label,
    Program,
    add,
    add_register,
    add_to_memory,
    call,
    copy,
    jump,
    jump_if,
    jump_if_bits,
    jump_unless,
    leave,
    load,
    load_map,
    mask,
    merge,
    put,
    set_bits,
    shift_right,
    store,
)

VLANS = 4096
"""Places in the map of legs, one for each number that a tag can have."""

PASS, DROP = 0, 2
"""Verdicts of a classifier (TC_ACT_OK, TC_ACT_SHOT)."""

_LENGTH = 0
MARK, _TAGGED, TAG, TAG_KIND = 8, 20, 24, 28
_MAP_LOOKUP, _CLONE_REDIRECT, _VLAN_PUSH, VLAN_POP, REDIRECT = 1, 13, 18, 19, 23
INTO_INGRESS = 1
VID_BITS, PRIORITY_BITS, _PROVIDER_MARK = 0x0FFF, 0xF000, 0x1_0000
_TAG_BYTES = 4
_HAD_TAG_AT = 18
HAD_TAG_MARK = 1 << _HAD_TAG_AT
"""The bit of the mark that says whether a frame came in with a tag."""

NAMED_NONE_MARK = 0x2_0000
"""The bit of the mark that says that this tag named no VLAN, but a priority alone."""

FRAMES_IN, FRAMES_OUT = 0, 16
"""Where a VLAN's numbers lie in a map of counts, each followed by the bytes; 8 bytes a number."""

REASON_AT = 20
"""Bits of the mark from here tell why a frame was dropped, as the number of the reason; 0: it passed."""

_REASON_BITS = 0x3F
CUSTOMER, _PROVIDER = 0x0081, 0xA888
"""EtherTypes 0x8100 and 0x88a8 in network order, as a little-endian machine reads them."""


@dataclass(frozen=True, slots=True)
class Tags:
    """How a port reads tags: the VLAN whose frames have none, whether it is a trunk, whether provider tags count."""

    native: int
    is_trunk: bool = False
    provider_tags: bool = False


def tags_of(vlan: int, trunk: Trunk | None) -> Tags:
    """Return how a port with an access VLAN, or the native one of a trunk, reads tags."""
    return Tags(vlan) if trunk is None else Tags(vlan, is_trunk=True, provider_tags=trunk.provider_tags)


def splitter(tags: Tags, legs: int, refused: int, counts: int, watch: int = 0) -> Program:
    """Return the program at the way in of a trunk, with the descriptors of its maps.

    `legs` holds an interface index for each VLAN, 0 for one that the port does not carry. `refused` counts, in its one
    place, the frames that were in no VLAN of the port. `counts` has four numbers for each VLAN. `watch` is the
    index of the device that takes copies of what is refused, 0: none.
    """
    return [
        copy(6, 1),
        put(7, tags.native),
        put(8, 0),  # what goes into the mark
        load(2, 6, _TAGGED),
        jump_if(2, 0, "find"),
        load(8, 6, TAG),
        copy(7, 8),
        mask(7, VID_BITS),
        mask(8, PRIORITY_BITS),
        set_bits(8, HAD_TAG_MARK),
        load(2, 6, TAG_KIND),
        jump_if(2, CUSTOMER, "customer"),
        *_provider(tags),
        Label("customer"),
        jump_unless(7, 0, "pop"),
        put(7, tags.native),  # a tag that names no VLAN tells a priority alone, as far as the native VLAN goes
        set_bits(8, NAMED_NONE_MARK),
        Label("pop"),
        copy(1, 6),
        call(VLAN_POP),
        jump_unless(0, 0, "refuse"),
        Label("find"),
        store(STACK_END, -4, 7),
        load_map(1, legs),
        *_looked_up("refuse"),
        load(9, 0, 0),
        jump_if(9, 0, "refuse"),
        merge(8, 7),
        store(6, MARK, 8),
        shift_right(8, _HAD_TAG_AT),
        mask(8, 1),
        *_counted(counts, FRAMES_IN, had_tag=8),
        copy(1, 9),
        put(2, INTO_INGRESS),
        call(REDIRECT),
        leave(),
        Label("refuse"),
        *count_refused(refused),
        *(_copied(watch) if watch else []),
        put(0, DROP),
        leave(),
    ]


def detour(device: int) -> Program:
    """Return the program that hands all frames out at the device with an index."""
    return [put(1, device), put(2, 0), call(REDIRECT), leave()]


def joiner(tags: Tags, vlan: int, device: int, counts: int) -> Program:
    """Return the program at the way out of the leg of a VLAN, which leads to the device of the port, by its index.

    `counts` is as for the splitter, which shares it. A provider's tag is put back also where its VLAN is the native
    one: without it the inner tag would be read there.
    """
    native = vlan == tags.native
    push: list[Instruction | Label] = [
        Label("push"),
        copy(3, 7),
        mask(3, PRIORITY_BITS),
        set_bits(3, vlan),
        copy(1, 6),
        call(_VLAN_PUSH),
        jump_unless(0, 0, "lost"),
    ]
    return [
        copy(6, 1),
        load(7, 6, MARK),
        put(2, 0),
        store(6, MARK, 2),
        put(2, _PROVIDER),
        jump_if_bits(7, _PROVIDER_MARK, "push" if tags.provider_tags else "lost"),
        put(2, CUSTOMER),
        *([jump("out")] if native else []),
        *(push if tags.provider_tags or not native else []),
        Label("out"),
        put(2, vlan),
        store(STACK_END, -4, 2),
        *_counted(counts, FRAMES_OUT),
        put(1, device),
        put(2, 0),
        call(REDIRECT),
        leave(),
        Label("lost"),
        put(0, DROP),
        leave(),
    ]


def labeller() -> Program:
    """Return the program at the way out of the device that takes copies of the frames of a port.

    It puts the tag back that the splitter took off, as it was, and before that another one, of a customer, whose 12
    bits of a VLAN are the reason why the frame was dropped.
    """
    return [
        copy(6, 1),
        load(7, 6, MARK),
        put(2, _PROVIDER),
        jump_if_bits(7, _PROVIDER_MARK, "push"),
        put(2, CUSTOMER),
        jump_if_bits(7, HAD_TAG_MARK, "push"),
        jump("label"),
        Label("push"),
        copy(3, 7),
        mask(3, PRIORITY_BITS | VID_BITS),
        jump_if_bits(7, NAMED_NONE_MARK, "priority"),
        jump("tag"),
        Label("priority"),
        mask(3, PRIORITY_BITS),
        Label("tag"),
        copy(1, 6),
        call(_VLAN_PUSH),
        jump_unless(0, 0, "lost"),
        Label("label"),
        put(2, CUSTOMER),
        copy(3, 7),
        shift_right(3, REASON_AT),
        mask(3, _REASON_BITS),
        copy(1, 6),
        call(_VLAN_PUSH),
        jump_unless(0, 0, "lost"),
        put(0, PASS),
        leave(),
        Label("lost"),
        put(0, DROP),
        leave(),
    ]


def _provider(tags: Tags) -> list[Instruction | Label]:
    """Return what is done with a tag that is not a customer's. One that does not count stays where it is."""
    if not tags.provider_tags:
        return [put(7, tags.native), put(8, 0), jump("refuse")]
    return [jump_unless(2, _PROVIDER, "refuse"), set_bits(8, _PROVIDER_MARK)]


def _copied(watch: int) -> list[Instruction | Label]:
    """Return what hands a copy of a refused frame to the labeller."""
    return [
        merge(8, 7),
        set_bits(8, DropReason.VLAN_MISMATCH << REASON_AT),
        *hand_copy(watch),
    ]


def hand_copy(watch: int) -> list[Instruction | Label]:
    """Return what hands a copy of a frame to the device with an index, with register 8 as its mark."""
    return [
        store(6, MARK, 8),
        copy(1, 6),
        put(2, watch),
        put(3, 0),
        call(_CLONE_REDIRECT),
    ]


def count_refused(refused: int) -> list[Instruction | Label]:
    """Return what counts a frame in the one place of a map, whose descriptor is given."""
    return [
        put(2, 0),
        store(STACK_END, -4, 2),
        load_map(1, refused),
        *_looked_up("end"),
        put(1, 1),
        add_to_memory(0, 0, 1),
        Label("end"),
    ]


def _counted(counts: int, place: int, had_tag: int | None = None) -> list[Instruction | Label]:
    """Return what counts a frame for the VLAN whose number lies at the end of the stack.

    A tag that lies beside the frame is not in its length; one that was taken off is told by a register, as 0 or 1.
    """
    return [
        load_map(1, counts),
        *_looked_up("counted"),
        put(1, 1),
        add_to_memory(0, place, 1),
        load(1, 6, _LENGTH),
        load(2, 6, _TAGGED),
        *([add_register(1, 2)] * _TAG_BYTES),
        *([add_register(1, had_tag)] * _TAG_BYTES if had_tag is not None else []),
        add_to_memory(0, place + 8, 1),
        Label("counted"),
    ]


def _looked_up(absent: str) -> list[Instruction | Label]:
    """Return a lookup in the map of register 1 of the key that lies at the end of the stack."""
    return [copy(2, STACK_END), add(2, -4), call(_MAP_LOOKUP), jump_if(0, 0, absent)]
