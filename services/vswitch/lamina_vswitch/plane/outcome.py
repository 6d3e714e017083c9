"""What a run of the plane noted, in the form of the reference."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import HEADER_BYTES, TPID_8021Q, untagged
from lamina_vswitch.domain.switch.admission import Admission, admit
from lamina_vswitch.domain.switch.decision import Decision
from lamina_vswitch.domain.switch.forwarding import Forwarding, Move
from lamina_vswitch.domain.switch.tagging import Form, in_form
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.compiled import layout, mac_table

_HEAD = struct.Struct("<qq")
_SLOT_MASK = (1 << layout.FORM_SHIFT) - 1
_VLAN_MASK = 0xFFF
_FORMS = dict(enumerate(Form, start=layout.AS_IT_CAME))


def told(
    noted: Any, outbox: Any, port: Port, burst: Burst, decisions: dict[DropReason, Decision]
) -> tuple[Forwarding, dict[int, list[bytes]]]:
    """Return what became of a burst, and the frames that did not fit into rings, by slot.

    `noted` is the job, `decisions` what was decided about the first frame of each drop. Of frames that met the same,
    the first stands for all; at a trunk, of those of one VLAN.
    """
    result = Forwarding(decisions=decisions)
    words: list[int] = noted.tolist()
    entries = outbox[: words[layout.POSTED >> 3]]
    is_lost = entries[:, 0] >> layout.LOST_SHIFT & 1 != 0
    lost: dict[int, list[bytes]] = {}
    if is_lost.any():
        _group(entries[is_lost], burst, result, lost)
        entries = entries[~is_lost]
    _deliveries(entries.tolist(), burst, result)
    for reason in DropReason:
        dropped, first = _pair(words, layout.DROPS, reason)
        if dropped and reason not in result.drops:
            result.drops[reason] = [burst.frame(first)] * dropped
    for outcome, frames in (
        (mac_table.NEW, result.learned),
        (mac_table.FULL, result.refused),
        (mac_table.STATIC_ELSEWHERE, result.spoofed),
    ):
        count, first = _pair(words, layout.LEARNED, outcome)
        if count:
            frames.extend([burst.frame(first)] * count)
    moved, first = _pair(words, layout.LEARNED, mac_table.MOVED)
    if moved:
        mac, vlan = burst.frame(first)[6:12], words[layout.MOVED_VLAN >> 3] or port.vlan
        result.moves.extend([Move(mac, vlan, words[layout.MOVED_FROM >> 3], port.slot)] * moved)
    return result, lost


def first_station(switch: Switch, port: Port, burst: Burst, numbers: Iterable[int], now_ns: int) -> bytes:
    """Return the source of the first of some frames that came in at a port, empty when none did."""
    for number in numbers:
        admitted = admit(switch, port, burst.frame(number), now_ns, acts=False)
        if isinstance(admitted, Admission):
            return admitted.header.src
    return b""


def untagged_frame(frame: bytes) -> bytes:
    """Return a frame as it leaves at an access port: without its 802.1Q tag, if it has one."""
    return untagged(frame) if frame[12:HEADER_BYTES] == TPID_8021Q else frame


def _deliveries(entries: list[list[int]], burst: Burst, result: Forwarding) -> None:
    """Note what Python delivers. Ports where a frame leaves in the same form get the same bytes."""
    leaving: dict[tuple[int, int], bytes] = {}
    for above, index, low, high in entries:
        key = index, above >> layout.FORM_SHIFT
        if key not in leaving:
            leaving[key] = _leaving(above, burst.frame(index), low, high)
        result.deliveries.setdefault(above & _SLOT_MASK, []).append(leaving[key])


def _group(entries: Any, burst: Burst, result: Forwarding, lost: dict[int, list[bytes]]) -> None:
    """Note frames that were dropped where they entered at a trunk, and those that did not fit into rings."""
    _, firsts, counts = np.unique(entries[:, 0], return_index=True, return_counts=True)
    for at in np.argsort(firsts):
        above, index, low, high = entries[firsts[at]].tolist()
        if above & _SLOT_MASK:
            frames = lost.setdefault(above & _SLOT_MASK, [])
        else:
            frames = result.drops.setdefault(DropReason(above >> layout.REASON_SHIFT), [])
        frames.extend([_leaving(above, burst.frame(index), low, high)] * int(counts[at]))


def _leaving(above: int, frame: bytes, low: int, high: int) -> bytes:
    """Return a frame in the form in which it leaves, with the head that was decided about.

    Who sent it may have changed it since then. Without a form it is as it came at a trunk, else without a tag.
    """
    head = _HEAD.pack(low, high)
    form = above >> layout.FORM_SHIFT & 0xF
    has_tag = above >> layout.TAG_SHIFT & 1 or (not form and head[12:HEADER_BYTES] == TPID_8021Q)
    size = HEADER_BYTES + 2 if has_tag else HEADER_BYTES
    decided = head[:size] + frame[size:]
    if form:
        return in_form(decided, _FORMS[form], above >> layout.VLAN_SHIFT & _VLAN_MASK)
    return decided if above >> layout.LOST_SHIFT & 1 else untagged_frame(decided)


def _pair(words: list[int], pairs: int, number: int) -> tuple[int, int]:
    """Return how many frames are noted under a number, and which was the first."""
    at = (pairs >> 3) + 2 * number
    return words[at], words[at + 1]
