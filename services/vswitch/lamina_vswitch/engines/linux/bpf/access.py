"""What the kernel does with frames that come in at an access port which is a device of the kernel.

The device is itself a port of the bridge of its VLAN, so a frame without a tag meets no program, and what leaves meets
none either. The *stripper* runs on frames with a tag alone: it takes off that of the port's VLAN, or one that names
none, and refuses any other. A *gate* stands before it where frames must not come in, or shall take a detour first;
where they come back from that, the *returner* says so in the mark of the packet.

The mark of a packet that comes from another network namespace is 0 (`skb_scrub_packet` of net/core/skbuff.c).

Source: bpf-helpers(7); `struct __sk_buff` of <linux/bpf.h>; tc-bpf(8), direct action.
"""

from __future__ import annotations

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.ebpf.assembler import (
    Label,
    Program,
    call,
    copy,
    jump_if_bits,
    jump_unless,
    leave,
    load,
    mask,
    merge,
    put,
    set_bits,
    store,
)
from lamina_vswitch.engines.linux.bpf.trunk import (
    CUSTOMER,
    DROP,
    HAD_TAG_MARK,
    INTO_INGRESS,
    MARK,
    NAMED_NONE_MARK,
    PASS,
    PRIORITY_BITS,
    REASON_AT,
    REDIRECT,
    TAG,
    TAG_KIND,
    VID_BITS,
    VLAN_POP,
    count_refused,
    hand_copy,
)

GO_ON = -1
"""The verdict of a classifier that leaves the packet to the next one (TC_ACT_UNSPEC)."""

_CAME_BACK_MARK = 0x8_0000


def stripper(native: int, refused: int, watch: int = 0) -> Program:
    """Return the program for frames with a tag at the way in of an access port, whose VLAN is `native`.

    `refused` is the descriptor of a map that counts, in its one place, the frames that were in another VLAN or had a
    provider's tag. `watch` is the index of the device that takes copies of them, 0: none. What is left of a tag goes
    into the mark, as the splitter of a trunk puts it there.
    """
    return [
        copy(6, 1),
        load(8, 6, TAG),
        copy(7, 8),
        mask(7, VID_BITS),
        mask(8, PRIORITY_BITS),
        set_bits(8, HAD_TAG_MARK),
        load(2, 6, TAG_KIND),
        jump_unless(2, CUSTOMER, "refuse"),
        jump_unless(7, 0, "named"),
        put(7, native),
        set_bits(8, NAMED_NONE_MARK),
        Label("named"),
        jump_unless(7, native, "refuse"),
        merge(8, 7),
        store(6, MARK, 8),
        copy(1, 6),
        call(VLAN_POP),
        jump_unless(0, 0, "refuse"),
        put(0, PASS),
        leave(),
        Label("refuse"),
        *count_refused(refused),
        *([put(8, DropReason.VLAN_MISMATCH << REASON_AT), *hand_copy(watch)] if watch else []),
        put(0, DROP),
        leave(),
    ]


def closed_gate() -> Program:
    """Return the program that lets nothing in."""
    return [put(0, DROP), leave()]


def detour_gate(device: int) -> Program:
    """Return the program that hands frames out at the device with an index, and lets in those that came back."""
    return [
        copy(6, 1),
        load(7, 6, MARK),
        jump_if_bits(7, _CAME_BACK_MARK, "back"),
        put(1, device),
        put(2, 0),
        call(REDIRECT),
        leave(),
        Label("back"),
        mask(7, ~_CAME_BACK_MARK),
        store(6, MARK, 7),
        put(0, GO_ON),
        leave(),
    ]


def returner(device: int) -> Program:
    """Return the program at the end of a detour, which hands frames in again at the device with an index."""
    return [
        put(2, _CAME_BACK_MARK),
        store(1, MARK, 2),
        put(1, device),
        put(2, INTO_INGRESS),
        call(REDIRECT),
        leave(),
    ]
