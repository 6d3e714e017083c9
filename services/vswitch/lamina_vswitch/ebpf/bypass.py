"""The two programs of a port that hands known frames on within the kernel, and the memory that they share with us.

A packet socket's *filter* sees each frame first. It looks both addresses up and either takes the frame out of the
socket's sight and notes where it goes, or hands it to the socket. The *redirector*, which the kernel runs on the same
frame right afterwards, on the same processor, does what was noted. So there is one decision for each frame.

    device ─► filter ─┬─ both stations known, nothing is news ─► counted ─► redirector ─► other device
                      └─ anything else ─► ring of the socket ─► the switch

Frames from one station to another stay in their order: a frame that is handed over closes the station's *gate* until
the switch has dealt with as many frames of the port as had been handed over by then. While the ring loses frames
(`DRAINS`), what would wait at a gate is lost too, and counted: else a flow that is too fast for the switch would keep
the ring full for ever.

Source: RFC 9669; include/uapi/linux/bpf.h; __netif_receive_skb_core of net/core/dev.c of Linux 6.18.
"""

from __future__ import annotations

from lamina_vswitch.ebpf.assembler import (
    STACK_END,
    Instruction,
    Label,
    Program,
    add,
    add_register,
    call,
    copy,
    exchange,
    fetch_and_add,
    flip_register,
    jump,
    jump_if,
    jump_if_above,
    jump_if_at_most,
    jump_if_same,
    jump_unless,
    jump_unless_same,
    leave,
    load,
    load16,
    load64,
    load_number,
    load_value,
    mask,
    merge,
    multiply_register,
    put,
    shift_left,
    shift_right,
    store64,
    subtract_register,
)

BUCKETS, BUCKET_PLACES, STATION_BYTES = 1024, 4, 32
STATION, SEEN, GATE = 0, 8, 16
"""A station: its address above the number of its port (0: none); when it sent last; how many frames of its port have
to be dealt with before another of its frames may pass."""

MOST_PORTS, PORT_BYTES = 128, 256
DOMAIN, DEVICE, LONGEST, HALF_LIFE, SAMPLE_DUE, HANDED, DEALT, DRAINS = range(0, 64, 8)
"""A port: the number of its VLAN (0: everything is for the socket); index of its device; bytes of the longest frame;
how long ago stations may have sent; when a frame shall be kept; frames handed to the socket, and dealt with; whether
its ring is being emptied."""
SAMPLE_BYTES, SAMPLE_TIME, SAMPLE = 64, 72, 80
"""The frame that was kept: its length, 0 for none; when; its first bytes."""
HEAD_BYTES = 128

MOST_PROCESSORS, ROW_BYTES, NOTE_BYTES = 64, 64, 64
IN_FRAMES, IN_BYTES, OUT_FRAMES, OUT_BYTES, LOST = range(0, 40, 8)
"""What one processor counted at one port: frames and bytes each way, and what was lost while the ring was emptied."""

STATIONS_AT = 0
PORTS_AT = STATIONS_AT + BUCKETS * BUCKET_PLACES * STATION_BYTES
NOTES_AT = PORTS_AT + MOST_PORTS * PORT_BYTES
COUNTS_AT = NOTES_AT + MOST_PROCESSORS * NOTE_BYTES
MEMORY_BYTES = COUNTS_AT + MOST_PROCESSORS * MOST_PORTS * ROW_BYTES

NEVER = (1 << 63) - 1
_STIR = 0x9E3779B97F4A7C15
_BUCKET_BITS = BUCKETS.bit_length() - 1
_BUCKET_SHIFT = (BUCKET_PLACES * STATION_BYTES).bit_length() - 1
_PORT_SHIFT, _NOTE_SHIFT, _ROW_SHIFT = 8, 6, 6
_PROCESSOR_SHIFT = _ROW_SHIFT + MOST_PORTS.bit_length() - 1

_LENGTH, _PACKET_TYPE, _TAGGED, _SEGMENT = 0, 4, 20, 176  # of struct __sk_buff
_FOR_ANOTHER_HOST = 3
_GET_TIME, _GET_PROCESSOR, _REDIRECT, _LOAD_BYTES = 5, 8, 23, 26
_NEXT_PROGRAM = -1
_HEADER, _DOMAIN, _NOW, _OLDEST, _PROCESSOR, _TARGET, _TO = -16, -24, -32, -40, -48, -56, -64
"""Places on the stack, of 64 bits, the header of 128. `_TARGET` is the device where the frame goes, `_TO` its port."""
_HEADER_BYTES = 14


def bucket_of(mac: int, domain: int) -> int:
    """Return the bucket of a station; `mac` is its address as a little-endian number."""
    return ((mac ^ domain << 48) * _STIR & (1 << 64) - 1) >> (64 - _BUCKET_BITS)


def packet_filter(memory: int, port: int) -> Program:
    """Return the filter of the socket of a port, by its number from 1, over shared memory, by its descriptor."""
    return [
        *_prepared(memory, port),
        *_source(memory, port),
        *_target(memory, port),
        *_timely(),
        *_noted(memory, port),
        Label("gate"),
        put(1, 1),
        fetch_and_add(7, HANDED, 1),
        add(1, 1),
        store64(8, GATE, 1),
        put(0, -1),
        leave(),
        Label("slow"),
        put(1, 1),
        fetch_and_add(7, HANDED, 1),
        put(0, -1),
        leave(),
    ]


def redirector(memory: int, port: int) -> Program:
    """Return the program at the way in of the device of a port, which does what its filter noted."""
    return [
        call(_GET_PROCESSOR),
        jump_if_above(0, MOST_PROCESSORS - 1, "next"),
        shift_left(0, _NOTE_SHIFT),
        load_value(2, memory, NOTES_AT),
        add_register(2, 0),
        load64(1, 2, 0),
        jump_if(1, 0, "next"),
        put(3, 0),
        store64(2, 0, 3),
        copy(4, 1),
        shift_right(4, 32),
        jump_unless(4, port, "next"),
        shift_left(1, 32),
        shift_right(1, 32),
        put(2, 0),
        call(_REDIRECT),
        leave(),
        Label("next"),
        put(0, _NEXT_PROGRAM),
        leave(),
    ]


def _prepared(memory: int, port: int) -> list[Instruction | Label]:
    """Return what reads the header: 6 is the frame, 7 the port.

    A note that no redirector took, as another program came before it, must not be taken for this frame's.
    """
    return [
        copy(6, 1),
        load_value(7, memory, PORTS_AT + port * PORT_BYTES),
        call(_GET_PROCESSOR),
        jump_if_above(0, MOST_PROCESSORS - 1, "slow"),
        store64(STACK_END, _PROCESSOR, 0),
        shift_left(0, _NOTE_SHIFT),
        load_value(2, memory, NOTES_AT),
        add_register(2, 0),
        put(1, 0),
        store64(2, 0, 1),
        load64(1, 7, DOMAIN),
        jump_if(1, 0, "slow"),
        store64(STACK_END, _DOMAIN, 1),
        load(1, 6, _PACKET_TYPE),
        jump_unless(1, _FOR_ANOTHER_HOST, "slow"),
        load(1, 6, _TAGGED),
        jump_unless(1, 0, "slow"),
        call(_GET_TIME),
        store64(STACK_END, _NOW, 0),
        load64(1, 7, HALF_LIFE),
        subtract_register(0, 1),
        store64(STACK_END, _OLDEST, 0),
        put(1, 0),
        store64(STACK_END, _HEADER, 1),
        store64(STACK_END, _HEADER + 8, 1),
        copy(1, 6),
        put(2, 0),
        copy(3, STACK_END),
        add(3, _HEADER),
        put(4, _HEADER_BYTES),
        call(_LOAD_BYTES),
        jump_unless(0, 0, "slow"),
    ]


def _source(memory: int, port: int) -> list[Instruction | Label]:
    """Return what finds the sender: 8. One that is known at another port is forgotten."""
    return [
        load16(9, STACK_END, _HEADER + 6),
        load(1, STACK_END, _HEADER + 8),
        shift_left(1, 16),
        merge(9, 1),
        *_found(memory, "source", "slow"),
        copy(8, 2),
        mask(3, 0xFFFF),
        jump_if(3, port, "here"),
        put(1, 0),
        store64(8, STATION, 1),
        jump("slow"),
        Label("here"),
        load64(1, 8, SEEN),
        load64(2, STACK_END, _OLDEST),
        jump_if_at_most(1, 2, "gate"),
    ]


def _target(memory: int, port: int) -> list[Instruction | Label]:
    """Return what finds where the frame goes: to another port of the VLAN, within the MTU, not in segments."""
    return [
        load16(1, STACK_END, _HEADER + 4),
        load(9, STACK_END, _HEADER),
        shift_left(1, 32),
        merge(9, 1),
        *_found(memory, "target", "gate"),
        mask(3, 0xFFFF),
        jump_if(3, port, "gate"),
        jump_if_above(3, MOST_PORTS - 1, "gate"),
        load64(1, 2, SEEN),
        load64(2, STACK_END, _OLDEST),
        jump_if_at_most(1, 2, "gate"),
        store64(STACK_END, _TO, 3),
        shift_left(3, _PORT_SHIFT),
        load_value(2, memory, PORTS_AT),
        add_register(2, 3),
        load64(1, 2, DOMAIN),
        load64(3, STACK_END, _DOMAIN),
        jump_unless_same(1, 3, "gate"),
        load64(1, 2, DEVICE),
        store64(STACK_END, _TARGET, 1),
        load(1, 6, _SEGMENT),
        jump_unless(1, 0, "gate"),
        load(9, 6, _LENGTH),
        load64(1, 7, LONGEST),
        jump_if_at_most(9, 1, "fits"),
        jump("gate"),
        Label("fits"),
    ]


def _timely() -> list[Instruction | Label]:
    """Return what has a frame wait at its gate, and keeps one now and then; 9 is its length."""
    return [
        load64(1, 8, GATE),
        load64(2, 7, DEALT),
        jump_if_at_most(1, 2, "open"),
        load64(1, 7, DRAINS),
        jump_if(1, 0, "gate"),
        jump("count"),
        Label("open"),
        load64(1, STACK_END, _NOW),
        load64(2, 7, SAMPLE_DUE),
        jump_if_at_most(2, 1, "keep"),
        jump("kept"),
        Label("keep"),
        load_number(1, NEVER),
        exchange(7, SAMPLE_DUE, 1),
        load_number(2, NEVER),
        jump_if_same(1, 2, "kept"),
        copy(4, 9),
        jump_if_above(4, HEAD_BYTES, "cut"),
        jump_if(4, 0, "kept"),
        jump("load"),
        Label("cut"),
        put(4, HEAD_BYTES),
        Label("load"),
        copy(1, 6),
        put(2, 0),
        copy(3, 7),
        add(3, SAMPLE),
        call(_LOAD_BYTES),
        load64(1, STACK_END, _NOW),
        store64(7, SAMPLE_TIME, 1),
        store64(7, SAMPLE_BYTES, 9),
        Label("kept"),
    ]


def _noted(memory: int, port: int) -> list[Instruction | Label]:
    """Return what counts a frame and notes for the redirector where it goes."""
    row = [
        load64(4, STACK_END, _PROCESSOR),
        jump_if_above(4, MOST_PROCESSORS - 1, "slow"),
        shift_left(4, _PROCESSOR_SHIFT),
        load_value(5, memory, COUNTS_AT),
        add_register(5, 4),
    ]
    return [
        load64(1, STACK_END, _NOW),
        store64(8, SEEN, 1),
        *row,
        *_counted(port * ROW_BYTES + IN_FRAMES),
        load64(3, STACK_END, _TO),
        jump_if_above(3, MOST_PORTS - 1, "slow"),
        shift_left(3, _ROW_SHIFT),
        add_register(5, 3),
        *_counted(OUT_FRAMES),
        load64(4, STACK_END, _PROCESSOR),
        shift_left(4, _NOTE_SHIFT),
        load_value(5, memory, NOTES_AT),
        jump_if_above(4, (MOST_PROCESSORS - 1) << _NOTE_SHIFT, "slow"),
        add_register(5, 4),
        put(2, port),
        shift_left(2, 32),
        load64(1, STACK_END, _TARGET),
        merge(2, 1),
        store64(5, 0, 2),
        put(0, 0),
        leave(),
        Label("count"),
        *row,
        load64(1, 5, port * ROW_BYTES + LOST),
        add(1, 1),
        store64(5, port * ROW_BYTES + LOST, 1),
        put(0, 0),
        leave(),
    ]


def _counted(place: int) -> list[Instruction | Label]:
    """Return what counts a frame, and its bytes behind that, in a row of this processor at 5."""
    return [
        load64(1, 5, place),
        add(1, 1),
        store64(5, place, 1),
        load64(1, 5, place + 8),
        add_register(1, 9),
        store64(5, place + 8, 1),
    ]


def _found(memory: int, what: str, absent: str) -> list[Instruction | Label]:
    """Return what finds the address in 9: its place is in 2 then, and its first word in 3."""
    steps: list[Instruction | Label] = [
        load64(1, STACK_END, _DOMAIN),
        shift_left(1, 48),
        flip_register(1, 9),
        load_number(2, _STIR),
        multiply_register(1, 2),
        shift_right(1, 64 - _BUCKET_BITS),
        shift_left(1, _BUCKET_SHIFT),
        load_value(2, memory, STATIONS_AT),
        add_register(2, 1),
    ]
    for place in range(BUCKET_PLACES):
        steps += [
            load64(3, 2, place * STATION_BYTES),
            copy(4, 3),
            shift_right(4, 16),
            jump_if_same(4, 9, f"{what}{place}"),
        ]
    steps.append(jump(absent))
    for place in range(BUCKET_PLACES):
        steps += [Label(f"{what}{place}"), add(2, place * STATION_BYTES), jump(what)]
    return [*steps, Label(what)]
