"""What a switch decides about one frame. One function decides for traffic and for `TraceFrame`, so they cannot differ.

Order of the pipeline: the way in (`admission.py`) → teaming → learn → lookup → teaming → output. Learning comes before
the lookup, as IEEE 802.1Q orders it: a frame that a station sends to itself finds itself at its own port.

Uplinks are one way out, however many there are: what is for a station behind any of them takes the one that the team of
its port chooses, and what came in at one leaves through none. What a physical switch sends over several links, or back
over another one, counts at one link; elsewhere it is dropped before anything is learned from it.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import Header, is_group, is_link_local
from lamina_vswitch.domain.offload.flow_hash import flow_hash
from lamina_vswitch.domain.switch.admission import Admission, Refusal, Rule, Shutting, Tag, admit
from lamina_vswitch.domain.switch.fdb import Entry, Learned
from lamina_vswitch.domain.switch.topology import Port, ShutReason, Switch, usable, ways_in
from lamina_vswitch.domain.uplink.teaming import choose, key_hash


class Decision(NamedTuple):
    """Where a frame goes, and what was found on the way.

    Exactly one of `outputs` (port slots, ascending) and `drop` is given. `header` is None when the frame could not be
    parsed or was not looked at; `learned` is None when the frame was dropped before its source was considered. `vlan`
    is the VLAN that it is in, 0 too when it is dropped before it is in one; `tag` is how it came tagged. `shutting` is
    the port that it has the switch shut.
    """

    rule: Rule
    outputs: tuple[int, ...] = ()
    drop: DropReason | None = None
    header: Header | None = None
    learned: Learned | None = None
    entry: Entry | None = None
    vlan: int = 0
    tag: Tag = Tag.NONE
    shutting: Shutting | None = None

    @property
    def flooded(self) -> bool:
        """Whether the frame goes to every other port of its VLAN."""
        return self.drop is None and (self.rule is Rule.GROUP or self.rule is Rule.UNKNOWN_UNICAST)


def decide(
    switch: Switch, port: Port, frame: bytes, now_ns: int, *, acts: bool = False, released: bool = False
) -> Decision:
    """Decide about a frame that enters `switch` at `port`.

    Only if it `acts`, addresses are learned and storms counted; a trace does not. `released`: the frame has waited for
    the shaper of its port. Shutting a port is left to the caller.
    """
    admitted = let_in(switch, port, frame, now_ns, acts=acts, released=released)
    if isinstance(admitted, Refusal):
        return refused(admitted)
    learn = switch.fdb.learn if acts else switch.fdb.would_learn
    learned = learn(admitted.vlan, admitted.header.src, _place(switch, port, admitted, now_ns), now_ns)
    return look_up(switch, port, admitted, learned, now_ns, frame)


def let_in(
    switch: Switch, port: Port, frame: bytes, now_ns: int, *, acts: bool, released: bool = False
) -> Admission | Refusal:
    """Decide everything about a frame that comes before its source is learned."""
    admitted = admit(switch, port, frame, now_ns, acts=acts, released=released)
    if isinstance(admitted, Refusal):
        return admitted
    header, vlan, _ = admitted
    if port.slot in switch.teams.uplinks and _stands_by(switch, port, admitted, now_ns):
        return Refusal(Rule.TEAMING_STANDBY, DropReason.TEAMING_STANDBY, header, vlan)
    limit = port.policy.security.mac_limit
    if limit and _one_too_many(switch, port, admitted, limit, now_ns):
        shutting = Shutting(port.slot, ShutReason.MAC_LIMIT) if port.policy.security.shut_at_mac_limit else None
        return Refusal(Rule.MAC_LIMIT, DropReason.MAC_LIMIT, header, vlan, shutting)
    return admitted


def look_up(switch: Switch, port: Port, admitted: Admission, learned: Learned, now_ns: int, frame: bytes) -> Decision:
    """Decide where a frame goes that came in and whose source has been learned."""
    header, vlan, tag = admitted
    if is_link_local(header.dst):
        return Decision(Rule.LINK_LOCAL, (), DropReason.LINK_LOCAL, header, learned, None, vlan, tag)
    if is_group(header.dst):
        return _flood(switch, port, Rule.GROUP, admitted, learned, frame)
    return _unicast(switch, port, admitted, learned, now_ns, frame)


def refused(refusal: Refusal) -> Decision:
    """Return the decision about a frame that did not come in."""
    rule, drop, header, vlan, shutting = refusal
    return Decision(rule, (), drop, header, None, None, vlan, Tag.NONE, shutting)


def _one_too_many(switch: Switch, port: Port, admitted: Admission, limit: int, now_ns: int) -> bool:
    """Tell whether the source would be one address more behind the port than it may have."""
    entry = switch.fdb.lookup(admitted.vlan, admitted.header.src, now_ns)
    if entry is not None and (entry.static or entry.port == port.slot):
        return False
    return switch.fdb.behind(port.slot, now_ns) >= limit


def _unicast(switch: Switch, port: Port, admitted: Admission, learned: Learned, now_ns: int, frame: bytes) -> Decision:
    header, vlan, tag = admitted
    entry = switch.fdb.lookup(vlan, header.dst, now_ns)
    if header.dst == header.src and learned in (Learned.NEW, Learned.MOVED):
        entry = Entry(port.slot, now_ns, static=False, serial=0)  # a trace has not learned it, traffic has
    if entry is None:
        return _flood(switch, port, Rule.UNKNOWN_UNICAST, admitted, learned, frame)
    target = _target(switch, port, entry, admitted, frame)
    drop = _hindrance(switch, port, target, admitted)
    outputs = (target,) if drop is None else ()
    if switch.listening:
        audience = switch.audience(port, vlan, tag is Tag.PROVIDER)
        listeners = audience.listeners
        if target in switch.teams.uplinks:  # from an uplink, it is here because it was flooded to all of them
            listeners = tuple(slot for slot in listeners if slot in audience.flood)
        outputs = tuple(sorted({*outputs, *listeners}))
    return Decision(Rule.KNOWN_UNICAST, outputs, None if outputs else drop, header, learned, entry, vlan, tag)


def _hindrance(switch: Switch, port: Port, slot: int, admitted: Admission) -> DropReason | None:
    """Return why a frame does not go to the port where its destination is; 0: no uplink leads there now."""
    uplinks = switch.teams.uplinks
    if slot == port.slot or (slot in uplinks and port.slot in uplinks):
        return DropReason.SAME_PORT
    if not slot:
        return DropReason.DESTINATION_DOWN
    target = switch.ports[slot]
    if not target.takes_part or not target.carries(admitted.vlan, admitted.tag is Tag.PROVIDER):
        return DropReason.DESTINATION_DOWN
    return DropReason.ISOLATED if port.policy.isolated and target.policy.isolated else None


def _flood(switch: Switch, port: Port, rule: Rule, admitted: Admission, learned: Learned, frame: bytes) -> Decision:
    header, vlan, tag = admitted
    audience = switch.audience(port, vlan, tag is Tag.PROVIDER)
    drop, outputs = None, audience.flood
    uplink = way_out(switch, port, admitted, frame)
    if uplink:
        outputs = tuple(sorted((*outputs, uplink)))
    if not outputs:
        drop = DropReason.ISOLATED if audience.isolated else DropReason.NO_DESTINATION
    return Decision(rule, outputs, drop, header, learned, None, vlan, tag)


# Uplinks


def way_out(switch: Switch, port: Port, admitted: Admission, frame: bytes) -> int:
    """Return the uplink that a frame from a port takes out of the host; 0 when there is none for it."""
    if not switch.teams.uplinks or port.slot in switch.teams.uplinks:
        return 0
    header, vlan, tag = admitted
    uplinks = usable(switch, port.slot, vlan, tag is Tag.PROVIDER)
    if not uplinks:
        return 0
    balancing = switch.teams.team_of(port.slot).balancing
    return choose(uplinks, key_hash(balancing, port.slot, header.src, lambda: flow_hash(frame)))


def _target(switch: Switch, port: Port, entry: Entry, admitted: Admission, frame: bytes) -> int:
    """Return the port to which a frame for a known station goes: its own, or, behind uplinks, that which is in use."""
    uplinks = switch.teams.uplinks
    if entry.port not in uplinks or port.slot in uplinks or entry.static:
        return entry.port
    return way_out(switch, port, admitted, frame)


def _place(switch: Switch, port: Port, admitted: Admission, now_ns: int) -> int:
    """Return where the source of a frame is learned. A station behind uplinks stays at the one where it was seen first.

    Which way its frames come is for the physical switch to choose; from link to link is no move.
    """
    uplinks = switch.teams.uplinks
    if port.slot not in uplinks:
        return port.slot
    entry = switch.fdb.lookup(admitted.vlan, admitted.header.src, now_ns)
    if entry is None or entry.static or entry.port not in uplinks or not switch.ports[entry.port].takes_part:
        return port.slot
    return entry.port


def _stands_by(switch: Switch, port: Port, admitted: Admission, now_ns: int) -> bool:
    """Tell whether a frame at an uplink is one that counts elsewhere: flooded by the physical switch, or our own.

    Where the frames of a guest leave, it counts in any case: that is how a guest that went to another host is heard.
    """
    header, vlan, tag = admitted
    provider = tag is Tag.PROVIDER
    source = switch.fdb.lookup(vlan, header.src, now_ns)
    if source is not None and source.port not in switch.teams.uplinks:
        ways = ways_in(switch, source.port, vlan, provider, header.src)
        if ways:
            return port.slot not in ways
    if is_link_local(header.dst) or not switch.audience(port, vlan, provider).standby:
        return False
    return is_group(header.dst) or switch.fdb.lookup(vlan, header.dst, now_ns) is None
