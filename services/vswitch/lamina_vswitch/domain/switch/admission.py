"""The way into a switch: what one frame meets before its address is learned.

Order: ingress (is the port up) → parse → loop (is it a probe) → vlan → source → security → storm → shape. The first
rule that refuses the frame decides. Nothing here changes anything unless it `acts`; then the storm meter counts, and
the first source address of a device is noted.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import (
    TPID_8021AD,
    Header,
    is_group,
    is_link_local,
    is_station,
    parse,
)
from lamina_vswitch.domain.policy.guards import claimed_address, from_dhcp_server, is_router_advertisement, packet_of
from lamina_vswitch.domain.policy.loops import PROBE_TYPE, loop_of
from lamina_vswitch.domain.policy.storm import StormClass
from lamina_vswitch.domain.switch.topology import Port, ShutReason, Switch

_BROADCAST = b"\xff" * 6


class Rule(enum.Enum):
    """The rule that decided where a frame goes; the part before the dot is its stage in the pipeline.

    PORT_REFUSED is no decision of the pipeline: the frame was lost at a port, before the switch or behind it.
    """

    PORT_REFUSED = "port.refused"
    INGRESS_PORT_DOWN = "ingress.port_down"
    INGRESS_PORT_SHUT = "ingress.port_shut"
    INGRESS_MIRROR_PORT = "ingress.mirror_port"
    PARSE_REFUSED = "parse.refused"
    LOOP_PROBE = "loop.probe"
    VLAN_MISMATCH = "vlan.mismatch"
    SOURCE_INVALID = "source.invalid"
    FORGED_TRANSMIT = "security.forged_transmit"
    DHCP_GUARD = "security.dhcp_guard"
    ROUTER_GUARD = "security.router_guard"
    SOURCE_GUARD = "security.source_guard"
    STORM = "storm.above_rate"
    SHAPED = "shape.queue_full"
    TEAMING_STANDBY = "teaming.standby"
    MAC_LIMIT = "learn.mac_limit"
    LINK_LOCAL = "lookup.link_local"
    GROUP = "lookup.group"
    UNKNOWN_UNICAST = "lookup.unknown_unicast"
    KNOWN_UNICAST = "lookup.known_unicast"


class Tag(enum.Enum):
    """How a frame that came in is tagged: not at all, with 802.1Q, or with 802.1ad at a port that reads it."""

    NONE = "none"
    CUSTOMER = "customer"
    PROVIDER = "provider"


class Shutting(NamedTuple):
    """A port that a frame has the switch shut: its slot, why, and the slot at the other end of a loop (0: none)."""

    slot: int
    reason: ShutReason
    peer: int = 0


class Refusal(NamedTuple):
    """A frame that does not come in, what was known of it by then, and what the port is shut for, if it is."""

    rule: Rule
    drop: DropReason
    header: Header | None = None
    vlan: int = 0
    shutting: Shutting | None = None


class Admission(NamedTuple):
    """A frame that came in: its head, the VLAN that it is in, 0 to 4094, and how it is tagged."""

    header: Header
    vlan: int
    tag: Tag


def admit(
    switch: Switch, port: Port, frame: bytes, now_ns: int, *, acts: bool, released: bool = False
) -> Admission | Refusal:
    """Decide whether a frame comes in. `released`: it waited for the shaper, which storm control had let it do."""
    if not port.up:
        if port.shut is not None and port.carrier:
            return Refusal(Rule.INGRESS_PORT_SHUT, DropReason.PORT_SHUT)
        return Refusal(Rule.INGRESS_PORT_DOWN, DropReason.LINK_DOWN)
    if port.copies_only:
        return Refusal(Rule.INGRESS_MIRROR_PORT, DropReason.MIRROR_PORT)
    provider = port.policy.trunk is not None and frame[12:14] == TPID_8021AD
    header = parse(frame, switch.mtu_bytes, provider=provider)
    if isinstance(header, DropReason):
        return Refusal(Rule.PARSE_REFUSED, header)
    if header.ethertype == PROBE_TYPE and switch.loop is not None:
        sender = switch.loop.sender(frame[14:] if header.tag_vid is None else frame[18:])
        if sender in switch.ports:
            loop = loop_of(sender, port.slot)
            shutting = Shutting(loop.shut, ShutReason.LOOP, loop.peer)
            return Refusal(Rule.LOOP_PROBE, DropReason.LOOP_PROBE, header, shutting=shutting)
    tag = Tag.NONE if header.tag_vid is None else Tag.PROVIDER if provider else Tag.CUSTOMER
    vlan = header.tag_vid or port.vlan
    if (header.tag_vid or provider) and not port.carries(vlan, provider):
        return Refusal(Rule.VLAN_MISMATCH, DropReason.VLAN_MISMATCH, header)
    if not is_station(header.src):
        return Refusal(Rule.SOURCE_INVALID, DropReason.SOURCE_INVALID, header, vlan)
    if acts and not port.first_mac:
        port.first_mac = header.src
    if port.plain:
        return Admission(header, vlan, tag)
    refusal = _insecure(switch, port, frame, header, now_ns)
    if refusal is None and not released:
        refusal = _storm(switch, port, header, vlan, now_ns, acts) or _full(port, now_ns)
    if refusal is not None:
        return refusal._replace(header=header, vlan=vlan)
    return Admission(header, vlan, tag)


def _insecure(switch: Switch, port: Port, frame: bytes, header: Header, now_ns: int) -> Refusal | None:
    """Return what the security policy has against a frame."""
    security = port.policy.security
    if security.reject_forged_transmits and header.src != (port.used_mac or header.src):
        return Refusal(Rule.FORGED_TRANSMIT, DropReason.FORGED_TRANSMIT)
    if not (security.dhcp_guard or security.router_guard or security.source_guard):
        return None
    kind, packet = packet_of(frame)
    if security.dhcp_guard and from_dhcp_server(kind, packet):
        return Refusal(Rule.DHCP_GUARD, DropReason.DHCP_GUARD)
    if security.router_guard and is_router_advertisement(kind, packet):
        return Refusal(Rule.ROUTER_GUARD, DropReason.ROUTER_GUARD)
    claimed = claimed_address(kind, packet) if security.source_guard else None
    if claimed is not None and not switch.leases.gives(port.slot, claimed, now_ns):
        return Refusal(Rule.SOURCE_GUARD, DropReason.SOURCE_GUARD)
    return None


def storm_class(switch: Switch, header: Header, vlan: int, now_ns: int) -> StormClass | None:
    """Return in which way a frame goes to everybody; None when it does not."""
    if header.dst == _BROADCAST:
        return StormClass.BROADCAST
    if is_group(header.dst):
        return None if is_link_local(header.dst) else StormClass.MULTICAST
    known = header.dst == header.src or switch.fdb.lookup(vlan, header.dst, now_ns) is not None
    return None if known else StormClass.UNKNOWN_UNICAST


def _storm(switch: Switch, port: Port, header: Header, vlan: int, now_ns: int, acts: bool) -> Refusal | None:
    if port.storm is None:
        return None
    kind = storm_class(switch, header, vlan, now_ns)
    if kind is None or not port.storm.limits(kind):
        return None
    judgement = port.storm.judge(kind, now_ns, acts=acts)
    if judgement.passes:
        return None
    shutting = Shutting(port.slot, ShutReason.STORM) if judgement.shut else None
    return Refusal(Rule.STORM, DropReason.STORM, shutting=shutting)


def _full(port: Port, now_ns: int) -> Refusal | None:
    if port.ingress is None or port.ingress.has_room(now_ns):
        return None
    return Refusal(Rule.SHAPED, DropReason.SHAPED)
