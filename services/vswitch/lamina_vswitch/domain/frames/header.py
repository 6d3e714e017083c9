"""The head of an Ethernet frame: bounds first, then addresses, 802.1Q tag and EtherType.

    byte   0         6         12      14
           +---------+---------+-------+----------------
           |   dst   |   src   | type  | payload …          untagged
           +---------+---------+-------+----------------
    byte   0         6         12      14      16      18
           +---------+---------+-------+-------+-------+--------
           |   dst   |   src   | 0x8100|  TCI  | type  | payload …   802.1Q; TCI = priority:3, DEI:1, VLAN id:12
           +---------+---------+-------+-------+-------+--------

Frames carry neither preamble nor frame check sequence. An 802.1ad tag (0x88a8) is payload at an access port and passes
untouched; a trunk that takes provider tags reads it.
Source: IEEE 802.3-2022, 3.1.1; IEEE 802.1Q-2022, 9.6.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lamina_net.offload import headers
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import load_of, longest_piece, with_tag, without_tag

HEADER_BYTES = 14
TAG_BYTES = 4
TPID_8021Q = b"\x81\x00"
TPID_8021AD = b"\x88\xa8"
VLAN_ID_MASK = 0x0FFF
GROUP_BIT = 0x01
ZERO_MAC = bytes(6)
LINK_LOCAL_PREFIX = b"\x01\x80\xc2\x00\x00"
MAX_FRAME_BYTES = 65535

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


class Header(NamedTuple):
    """Parsed head of a frame.

    `dst` and `src` are 6 bytes, `ethertype` is 0 to 65535 and lies behind the tag, `tag_vid` is the VLAN id of the tag,
    0 to 4095 (0: priority tag), or None for an untagged frame.
    """

    dst: bytes
    src: bytes
    ethertype: int
    tag_vid: int | None


def parse(frame: bytes, mtu_bytes: int, *, provider: bool = False) -> Header | DropReason:
    """Return the head of `frame`, or the reason why a switch with this MTU has to drop it. Never raises.

    With `provider`, a leading 802.1ad tag is the frame's tag, and an 802.1Q tag behind it may make it longer too.
    A frame that leaves as several may be longer: its pieces were measured where it entered, with all their tags; those
    that the switch does not look behind are payload here.
    """
    size = len(frame)
    if size < HEADER_BYTES:
        return DropReason.RUNT
    tagged = frame[12:14] == TPID_8021Q or (provider and frame[12:14] == TPID_8021AD)
    tags = tagged + (provider and tagged and frame[12:14] == TPID_8021AD and frame[16:18] == TPID_8021Q)
    head = HEADER_BYTES + TAG_BYTES * tags
    if size > mtu_bytes + head and not _fits_cut(frame, mtu_bytes, head):
        return DropReason.OVERSIZE
    if not tagged:
        return Header(frame[0:6], frame[6:12], int.from_bytes(frame[12:14], "big"), None)
    if size < HEADER_BYTES + TAG_BYTES:
        return DropReason.VLAN_TRUNCATED
    vid = int.from_bytes(frame[14:16], "big") & VLAN_ID_MASK
    return Header(frame[0:6], frame[6:12], int.from_bytes(frame[16:18], "big"), vid)


def _fits_cut(frame: bytes, mtu_bytes: int, head: int) -> bool:
    """Tell whether a frame leaves as several, each of which has an MTU's payload behind its first `head` bytes."""
    offload, _ = load_of(frame)
    if offload is None or not offload.segments:
        return False
    if frame[head - 2 : head] not in (TPID_8021Q, TPID_8021AD):
        return True
    return longest_piece(offload, headers.parse(frame, stacked=True).version) <= mtu_bytes + head


def untagged(frame: bytes) -> bytes:
    """Return a tagged frame without its 802.1Q tag. The frame has been parsed, so the tag is complete."""
    return without_tag(frame)


def tagged(frame: bytes, vlan: int) -> bytes:
    """Return an untagged frame with an 802.1Q tag of a VLAN, 1 to 4094, and the lowest priority."""
    return with_tag(frame, TPID_8021Q + vlan.to_bytes(2, "big"))


def retagged(frame: bytes, vlan: int) -> bytes:
    """Return a frame that has an 802.1Q tag with another VLAN in it, 1 to 4094; its priority stays."""
    priority = frame[14] & ~(VLAN_ID_MASK >> 8)
    return with_tag(without_tag(frame), TPID_8021Q + bytes([priority | vlan >> 8, vlan & 0xFF]))


def is_group(mac: bytes) -> bool:
    """Tell whether an address is a multicast address or the broadcast address."""
    return bool(mac[0] & GROUP_BIT)


def is_station(mac: bytes) -> bool:
    """Tell whether an address can belong to one station: not zero and not a group address."""
    return not mac[0] & GROUP_BIT and mac != ZERO_MAC


def is_link_local(mac: bytes) -> bool:
    """Tell whether a bridge without spanning tree must keep frames to this address on their link.

    01:80:c2:00:00:00 (spanning tree) is forwarded, as Linux does when it runs no spanning tree itself; :01 to :0f are
    not. Source: IEEE 802.1Q-2022, table 8-1; Linux net/bridge/br_input.c, br_handle_frame.
    """
    return mac[:5] == LINK_LOCAL_PREFIX and 0 < mac[5] < 16


def format_mac(mac: bytes) -> str:
    """Return `02:00:00:00:00:01` for six bytes."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes | None:
    """Return the six bytes of `02:00:00:00:00:01`, or None when the text is not an address."""
    return bytes.fromhex(text.replace(":", "")) if _MAC.fullmatch(text) else None
