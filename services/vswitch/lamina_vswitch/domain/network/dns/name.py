"""Domain names: on the wire a chain of labels that may end in a pointer to an earlier one, in text with dots.

Names here are lower-case text without a final dot; the root is the empty text. Source: RFC 1035, 3.1 and 4.1.4.
"""

from __future__ import annotations

import re

from lamina_net.packets.refusal import Refusal

MAX_NAME_BYTES = 253
MAX_LABEL_BYTES = 63
_MAX_POINTERS = 32
_POINTER = 0xC0
_LABEL = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?")
REVERSE_ZONE = "in-addr.arpa"


def is_name(text: str, *, wildcard: bool = False) -> bool:
    """Tell whether a text is a lower-case name without a final dot; with `wildcard` it may begin with `*.`."""
    if wildcard and text.startswith("*."):
        text = text[2:]
    return 0 < len(text) <= MAX_NAME_BYTES and all(_LABEL.fullmatch(label) for label in text.split("."))


def is_label(text: str) -> bool:
    """Tell whether a text is one label of a host: lower-case letters, digits and `-`, neither first nor last."""
    return _LABEL.fullmatch(text) is not None and "_" not in text


def read(data: bytes, place: int) -> tuple[str, int] | Refusal:
    """Return the name at `place` of a message and where what follows it begins. Never raises.

    TRUNCATED, or LENGTH for more than 253 bytes, an unknown kind of label, a label that is no text, or pointers that do
    not go back: each must point before the place that the name was read from last, so the walk ends.
    """
    labels: list[bytes] = []
    after, floor, size = 0, place, 0
    for _ in range(_MAX_POINTERS):
        while place < len(data) and 0 < data[place] <= MAX_LABEL_BYTES:
            end = place + 1 + data[place]
            size += 1 + data[place]
            if end > len(data):
                return Refusal.TRUNCATED
            if size > MAX_NAME_BYTES + 1:
                return Refusal.LENGTH
            labels.append(data[place + 1 : end])
            place = end
        if place >= len(data):
            return Refusal.TRUNCATED
        if data[place] == 0:
            return _text(labels, after or place + 1)
        if data[place] < _POINTER:
            return Refusal.LENGTH
        if place + 1 >= len(data):
            return Refusal.TRUNCATED
        target = (data[place] & ~_POINTER) << 8 | data[place + 1]
        after = after or place + 2
        if target >= floor:
            return Refusal.LENGTH
        place = floor = target
    return Refusal.LENGTH


def _text(labels: list[bytes], after: int) -> tuple[str, int] | Refusal:
    joined = b".".join(labels).lower()
    if not joined.isascii() or any(b"." in label for label in labels):
        return Refusal.LENGTH
    return joined.decode(), after


def write(name: str, known: dict[str, int], place: int) -> bytes:
    """Return a name for `place` of a message; `known` says where names begin already, and learns those of this one."""
    written = b""
    while name:
        pointer = known.get(name)
        if pointer is not None:
            return written + (_POINTER << 8 | pointer).to_bytes(2, "big")
        if place + len(written) < 0x4000:
            known[name] = place + len(written)
        label, _, name = name.partition(".")
        written += bytes([len(label)]) + label.encode()
    return written + b"\0"


def reverse(address: int) -> str:
    """Return the name under which an address has its names: `15.2.0.10.in-addr.arpa`."""
    return ".".join(str(byte) for byte in reversed(address.to_bytes(4, "big"))) + "." + REVERSE_ZONE


def within(name: str, domain: str) -> bool:
    """Tell whether a name is a domain's own or below it."""
    return name == domain or name.endswith("." + domain)
