"""In which form a frame leaves a port: as it came, without its tag, with one, or with another VLAN in its tag.

A frame keeps the tag that it came with where a trunk carries it, priority and all; the native VLAN of a trunk and the
VLAN of an access port travel untagged. What came by a provider's tag goes on by that tag alone on trunks, also where
its VLAN is the native one: without the outer tag the inner one would be read there as if it were the outer. An access
port is the customer's end: it gets the frame without the provider's tag.
"""

from __future__ import annotations

import enum

from lamina_vswitch.domain.frames.header import retagged, tagged, untagged
from lamina_vswitch.domain.switch.admission import Tag
from lamina_vswitch.domain.switch.topology import Port


class Form(enum.Enum):
    """What is done to a frame on its way out."""

    AS_IT_CAME = "as_it_came"
    UNTAGGED = "untagged"
    TAGGED = "tagged"
    RETAGGED = "retagged"


def form_at(target: Port, vlan: int, tag: Tag, tag_vid: int | None) -> Form:
    """Return the form in which a frame of a VLAN leaves `target`, which carries it."""
    trunk = target.policy.trunk
    if trunk is None or (vlan == trunk.native and tag is Tag.CUSTOMER):
        return Form.AS_IT_CAME if tag is Tag.NONE else Form.UNTAGGED
    if tag is Tag.NONE:
        return Form.AS_IT_CAME if vlan == trunk.native else Form.TAGGED
    return Form.AS_IT_CAME if tag_vid or tag is Tag.PROVIDER else Form.RETAGGED


def in_form(frame: bytes, form: Form, vlan: int) -> bytes:
    """Return a frame in the form in which it leaves."""
    if form is Form.AS_IT_CAME:
        return frame
    if form is Form.UNTAGGED:
        return untagged(frame)
    return tagged(frame, vlan) if form is Form.TAGGED else retagged(frame, vlan)
