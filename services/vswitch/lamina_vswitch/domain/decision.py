"""What a switch decides about one frame. One function decides for traffic and for `TraceFrame`, so they cannot differ.

Order of the pipeline: ingress (is the port up) → parse → vlan → source → learn → lookup → output. Learning comes before
the lookup, as IEEE 802.1Q orders it: a frame that a station sends to itself finds itself at its own port.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from lamina_vswitch.domain.drop import DropReason
from lamina_vswitch.domain.fdb import Entry, Learned
from lamina_vswitch.domain.frame import Header, is_group, is_link_local, is_station, parse
from lamina_vswitch.domain.topology import Port, Switch

Learn = Callable[[int, bytes, int, int], Learned]


class Rule(enum.Enum):
    """The rule that decided where a frame goes; the part before the dot is its stage in the pipeline.

    PORT_REFUSED is no decision of the pipeline: the frame was lost at a port, before the switch or behind it.
    """

    PORT_REFUSED = "port.refused"
    INGRESS_PORT_DOWN = "ingress.port_down"
    INGRESS_MIRROR_PORT = "ingress.mirror_port"
    PARSE_REFUSED = "parse.refused"
    VLAN_MISMATCH = "vlan.mismatch"
    SOURCE_INVALID = "source.invalid"
    LINK_LOCAL = "lookup.link_local"
    GROUP = "lookup.group"
    UNKNOWN_UNICAST = "lookup.unknown_unicast"
    KNOWN_UNICAST = "lookup.known_unicast"


class Decision(NamedTuple):
    """Where a frame goes, and what was found on the way.

    Exactly one of `outputs` (port slots, ascending) and `drop` is given. `header` is None when the frame could not be
    parsed or was not looked at; `learned` is None when the frame was dropped before its source was considered.
    """

    rule: Rule
    outputs: tuple[int, ...] = ()
    drop: DropReason | None = None
    header: Header | None = None
    learned: Learned | None = None
    entry: Entry | None = None

    @property
    def flooded(self) -> bool:
        """Whether the frame goes to every other port of its VLAN."""
        return self.drop is None and (self.rule is Rule.GROUP or self.rule is Rule.UNKNOWN_UNICAST)


def decide(switch: Switch, port: Port, frame: bytes, now_ns: int, learn: Learn) -> Decision:
    """Decide about a frame that enters `switch` at `port`.

    `learn` is the fdb's `learn` for traffic and its `would_learn` for a trace; everything else here only reads.
    """
    if not port.up:
        return Decision(Rule.INGRESS_PORT_DOWN, drop=DropReason.LINK_DOWN)
    if port.copies_only:
        return Decision(Rule.INGRESS_MIRROR_PORT, drop=DropReason.MIRROR_PORT)
    header = parse(frame, switch.mtu_bytes)
    if isinstance(header, DropReason):
        return Decision(Rule.PARSE_REFUSED, drop=header)
    if header.tag_vid and header.tag_vid != port.vlan:
        return Decision(Rule.VLAN_MISMATCH, drop=DropReason.VLAN_MISMATCH, header=header)
    if not is_station(header.src):
        return Decision(Rule.SOURCE_INVALID, drop=DropReason.SOURCE_INVALID, header=header)
    learned = learn(port.vlan, header.src, port.slot, now_ns)
    if is_link_local(header.dst):
        return Decision(Rule.LINK_LOCAL, drop=DropReason.LINK_LOCAL, header=header, learned=learned)
    if is_group(header.dst):
        return _flood(switch, port, Rule.GROUP, header, learned)
    return _unicast(switch, port, header, learned, now_ns)


def _unicast(switch: Switch, port: Port, header: Header, learned: Learned, now_ns: int) -> Decision:
    entry = switch.fdb.lookup(port.vlan, header.dst, now_ns)
    if header.dst == header.src and learned in (Learned.NEW, Learned.MOVED):
        entry = Entry(port.slot, now_ns, static=False, serial=0)  # a trace has not learned it, traffic has
    if entry is None:
        return _flood(switch, port, Rule.UNKNOWN_UNICAST, header, learned)
    if entry.port == port.slot:
        drop = DropReason.SAME_PORT
    else:
        target = switch.ports[entry.port]
        if target.takes_part and target.vlan == port.vlan:
            return Decision(Rule.KNOWN_UNICAST, (entry.port,), header=header, learned=learned, entry=entry)
        drop = DropReason.DESTINATION_DOWN
    return Decision(Rule.KNOWN_UNICAST, drop=drop, header=header, learned=learned, entry=entry)


def _flood(switch: Switch, port: Port, rule: Rule, header: Header, learned: Learned) -> Decision:
    outputs = switch.flood_ports(port)
    if outputs:
        return Decision(rule, outputs, header=header, learned=learned)
    return Decision(rule, drop=DropReason.NO_DESTINATION, header=header, learned=learned)
