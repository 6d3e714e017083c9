"""The rule chain: a decision, told as the steps that led to it. Pure, and built from the decision that traffic gets."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.frames.header import HEADER_BYTES, TAG_BYTES, Header, format_mac
from lamina_vswitch.domain.policy.guards import claimed_address, packet_of
from lamina_vswitch.domain.policy.storm import StormClass
from lamina_vswitch.domain.switch.admission import Rule, Tag
from lamina_vswitch.domain.switch.decision import Decision, decide
from lamina_vswitch.domain.switch.fdb import Learned
from lamina_vswitch.domain.switch.tagging import Form, form_at, in_form
from lamina_vswitch.domain.switch.topology import Port, ShutReason, Switch, usable

_SECURITY = (Rule.FORGED_TRANSMIT, Rule.DHCP_GUARD, Rule.ROUTER_GUARD, Rule.SOURCE_GUARD)
_BEFORE_SECURITY = (Rule.VLAN_MISMATCH, Rule.SOURCE_INVALID, Rule.LOOP_PROBE)


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that the frame met: stage of the pipeline, rule that held, and the values that decided, in words."""

    stage: str
    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class Trace:
    """What would happen to a frame. `outputs` are port names, `frame` the bytes that would leave at the first of them;
    `vlan` 0 to 4094. `decision` goes as far as the queues of the ports: copies that these refuse are not among its
    outputs, and it is a drop when none is left."""

    decision: Decision
    vlan: int
    outputs: tuple[str, ...]
    frame: bytes
    steps: tuple[Step, ...]


def trace(switch: Switch, port: Port, frame: bytes, now_ns: int) -> Trace:
    """Return what `switch` would do with `frame` if it entered at `port` now. Changes nothing that can be observed."""
    return tell(switch, port, frame, decide(switch, port, frame, now_ns), now_ns)


def tell(switch: Switch, port: Port, frame: bytes, decision: Decision, now_ns: int) -> Trace:
    """Return the rule chain of a decision that was made about `frame`, which entered at `port`."""
    barred = {slot: refused_at(switch.ports[slot], now_ns) for slot in decision.outputs}
    reached = [slot for slot in decision.outputs if barred[slot] is None]
    drop = decision.drop if reached or decision.drop is not None else barred[decision.outputs[0]]
    leaves = b""
    if reached and decision.header is not None:
        form = form_at(switch.ports[reached[0]], decision.vlan, decision.tag, decision.header.tag_vid)
        leaves = in_form(frame, form, decision.vlan)
    outputs = tuple(switch.ports[slot].name for slot in reached)
    steps = (*_chain(switch, port, frame, decision, now_ns), *_output(switch, decision, barred, now_ns, frame))
    return Trace(decision._replace(outputs=tuple(reached), drop=drop), decision.vlan, outputs, leaves, steps)


def refused_at(target: Port, now_ns: int) -> DropReason | None:
    """Return why a copy that comes to `target` now does not get into its queue by its policy; None when it does."""
    if target.plain:
        return None
    if target.mac_changed:
        return DropReason.MAC_CHANGED
    return None if target.egress is None or target.egress.has_room(now_ns) else DropReason.SHAPED


def _chain(switch: Switch, port: Port, frame: bytes, decision: Decision, now_ns: int) -> list[Step]:
    """Return the steps up to the lookup; each stage adds one, and the last one is the rule that decided."""
    if decision.rule in (Rule.INGRESS_PORT_DOWN, Rule.INGRESS_PORT_SHUT, Rule.INGRESS_MIRROR_PORT):
        return [Step("ingress", decision.rule.value, _not_in(port, decision.rule))]
    steps = [Step("ingress", "ingress.port_up", f"{port.name} has its link up and is attached")]
    header = decision.header
    if header is None:
        longest = switch.mtu_bytes + HEADER_BYTES
        detail = f"{len(frame)} bytes; {HEADER_BYTES} to {longest} are allowed, {TAG_BYTES} more with a tag"
        return [*steps, Step("parse", decision.rule.value, detail)]
    steps.append(Step("parse", "parse.accepted", _describe(header, len(frame))))
    if decision.rule is Rule.LOOP_PROBE:
        return [*steps, Step("loop", decision.rule.value, _probe(switch, decision))]
    steps.append(_vlan(port, header, decision))
    if decision.rule is not Rule.VLAN_MISMATCH:
        steps.append(_source(header, decision))
    if decision.rule not in _BEFORE_SECURITY and not port.plain:
        steps.extend(_policy(port, frame, header, decision, now_ns))
    if decision.rule is Rule.TEAMING_STANDBY:
        steps.append(Step("teaming", decision.rule.value, f"{port.name} is not the uplink at which this frame counts"))
    if decision.rule is Rule.MAC_LIMIT:
        limit = port.policy.security.mac_limit
        ending = ", and it is shut" if decision.shutting is not None else ""
        steps.append(Step("learn", decision.rule.value, f"{port.name} has the {limit} addresses it may have{ending}"))
    if decision.learned is not None:
        steps.append(_learn(switch, port, header, decision))
        steps.append(_lookup(switch, port, header, decision, now_ns))
        steps.extend(_teaming(switch, port, decision))
    return steps


def _teaming(switch: Switch, port: Port, decision: Decision) -> list[Step]:
    """Return the step that tells why a frame leaves through this uplink and not another."""
    taken = [slot for slot in decision.outputs if slot in switch.teams.uplinks]
    if not taken:
        return []
    balancing = switch.teams.team_of(port.slot).balancing.name.lower()
    used = usable(switch, port.slot, decision.vlan, decision.tag is Tag.PROVIDER)
    names = ", ".join(switch.ports[slot].name for slot in used)
    if taken[0] not in used:
        return [Step("teaming", "teaming.static", f"its static entry names {switch.ports[taken[0]].name}")]
    return [Step("teaming", f"teaming.{balancing}", f"takes {switch.ports[taken[0]].name}, of {names}")]


def _not_in(port: Port, rule: Rule) -> str:
    if rule is Rule.INGRESS_MIRROR_PORT:
        return f"{port.name} is the destination of a mirror and takes part in nothing else"
    if port.shut is not None and rule is Rule.INGRESS_PORT_SHUT:
        causes = {
            ShutReason.LOOP: f"it is in a loop with {port.shut.peer}",
            ShutReason.STORM: "a storm went on for too long",
            ShutReason.MAC_LIMIT: "it had more addresses than it may have",
        }
        return f"{port.name} was shut: {causes[port.shut.reason]}"
    return f"{port.name} is not up: {'nothing is attached' if port.link_up else 'its link is down'}"


def _describe(header: Header, size: int) -> str:
    tag = "untagged" if header.tag_vid is None else f"tagged with VLAN id {header.tag_vid}"
    return f"{format_mac(header.src)} to {format_mac(header.dst)}, type 0x{header.ethertype:04x}, {tag}, {size} bytes"


def _probe(switch: Switch, decision: Decision) -> str:
    if decision.shutting is None:
        return "a probe of this switch came back"
    names = [switch.ports[slot].name for slot in (decision.shutting.slot, decision.shutting.peer)]
    return f"a probe of this switch came back: {names[0]} is shut, being in a loop with {names[1]}"


def _vlan(port: Port, header: Header, decision: Decision) -> Step:
    trunk = port.policy.trunk
    own = f"access VLAN is {port.vlan}" if trunk is None else "the trunk does not carry that"
    if decision.rule is Rule.VLAN_MISMATCH:
        return Step("vlan", decision.rule.value, f"tag says VLAN {header.tag_vid}, {own}")
    if trunk is not None:
        if header.tag_vid:
            rule = "vlan.provider_tag" if decision.tag is Tag.PROVIDER else "vlan.trunk_tag"
            return Step("vlan", rule, f"tag says VLAN {header.tag_vid}, which the trunk carries")
        words = "untagged" if header.tag_vid is None else "priority-tagged"
        return Step("vlan", "vlan.native", f"{words}, so in native VLAN {port.vlan}")
    if header.tag_vid is None:
        return Step("vlan", "vlan.access", f"untagged, so in access VLAN {port.vlan}")
    rule = "vlan.own_tag" if header.tag_vid else "vlan.priority_tag"
    return Step("vlan", rule, f"VLAN id {header.tag_vid} fits access VLAN {port.vlan}; the tag is taken off")


def _source(header: Header, decision: Decision) -> Step:
    mac = format_mac(header.src)
    if decision.rule is Rule.SOURCE_INVALID:
        return Step("source", decision.rule.value, f"{mac} cannot be the address of one station")
    return Step("source", "source.station", f"{mac} is a station address")


def _policy(port: Port, frame: bytes, header: Header, decision: Decision, now_ns: int) -> list[Step]:
    """Return the steps of security, storm control and shaping, as far as the frame came."""
    if decision.rule in _SECURITY:
        return [Step("security", decision.rule.value, _offence(port, frame, header, decision.rule))]
    steps = [Step("security", "security.allowed", "the security policy has nothing against it")]
    if decision.rule is Rule.STORM:
        ending = ", and the port is shut" if decision.shutting is not None else ""
        return [*steps, Step("storm", decision.rule.value, f"{_rates(port)}; there was more{ending}")]
    if port.storm is not None:
        steps.append(Step("storm", "storm.within_rate", _rates(port)))
    if port.ingress is not None:
        rule = decision.rule.value if decision.rule is Rule.SHAPED else "shape.ingress"
        steps.append(Step("shape", rule, _waiting(port, "ingress", frame, now_ns)))
    return steps


def _offence(port: Port, frame: bytes, header: Header, rule: Rule) -> str:
    if rule is Rule.FORGED_TRANSMIT:
        return f"source {format_mac(header.src)} is not {format_mac(port.used_mac)}, which the device uses"
    if rule is Rule.DHCP_GUARD:
        return "only a DHCP server sends this"
    if rule is Rule.ROUTER_GUARD:
        return "an IPv6 router advertisement, or headers that hide what it is"
    address = claimed_address(*packet_of(frame)) or b""
    said = ".".join(str(byte) for byte in address) if address else "an address that its cut header hides"
    return f"it comes from {said}, which no lease or reservation gives to this port"


def _rates(port: Port) -> str:
    control = port.policy.storm_control
    if control is None:
        return "no storm control"
    rates = zip(StormClass, (control.broadcast, control.multicast, control.unknown_unicast), strict=True)
    said = [f"{rate} {kind.value.replace('_', ' ')} frames" for kind, rate in rates if rate]
    return f"allowed a second: {', '.join(said) or 'all'}"


def _waiting(port: Port, way: str, frame: bytes, now_ns: int) -> str:
    shaper = port.ingress if way == "ingress" else port.egress
    if shaper is None:
        return "it does not wait"
    wait_ns = shaper.wait_ns(frame, now_ns)
    if wait_ns is not None:
        return f"{way} shaping of {port.name}: it leaves after {wait_ns} ns"
    return f"{way} shaping of {port.name}: {len(shaper)} frames wait already"


def _learn(switch: Switch, port: Port, header: Header, decision: Decision) -> Step:
    place = f"{format_mac(header.src)} in VLAN {decision.vlan}"
    known = "an uplink" if port.slot in switch.teams.uplinks else port.name
    words = {
        Learned.NEW: f"{place} becomes known at {port.name}",
        Learned.REFRESHED: f"{place} is known at {known}; its age starts anew",
        Learned.MOVED: f"{place} moves to {port.name}",
        Learned.FULL: f"{place} is not learned: the table holds {switch.fdb.limit} entries, its limit",
        Learned.STATIC: f"{place} has a static entry at this port",
        Learned.STATIC_ELSEWHERE: f"{place} has a static entry at another port, which stays",
    }
    learned = decision.learned or Learned.NEW
    return Step("learn", f"learn.{learned.value}", words[learned])


def _lookup(switch: Switch, port: Port, header: Header, decision: Decision, now_ns: int) -> Step:
    mac, entry = format_mac(header.dst), decision.entry
    if entry is not None:
        kind = "static" if entry.static else f"{now_ns - entry.seen_ns} ns old"
        detail = f"{mac} in VLAN {decision.vlan} is at {switch.ports[entry.port].name} ({kind})"
    elif decision.rule is Rule.LINK_LOCAL:
        detail = f"{mac} is a link-local address"
    elif decision.rule is Rule.GROUP:
        detail = f"{mac} is a group address: every other port of VLAN {decision.vlan} gets a copy"
    else:
        detail = f"{mac} is not known in VLAN {decision.vlan}: every other port of the VLAN gets a copy"
    return Step("lookup", decision.rule.value, detail)


_FORMS = {Form.UNTAGGED: ", without its tag", Form.TAGGED: ", tagged", Form.RETAGGED: ", with its VLAN in the tag"}


def _output(
    switch: Switch, decision: Decision, barred: dict[int, DropReason | None], now_ns: int, frame: bytes
) -> list[Step]:
    if decision.drop is not None:
        return [_dropped(decision.drop, "")]
    steps = []
    for slot in decision.outputs:
        target, reason = switch.ports[slot], barred[slot]
        if reason is not None:
            steps.append(_dropped(reason, f" at {target.name}"))
            continue
        listens = decision.entry is not None and slot != decision.entry.port
        rule = "output.flood" if decision.flooded else "output.promiscuous" if listens else "output.forward"
        tag_vid = decision.header.tag_vid if decision.header is not None else None
        form = form_at(target, decision.vlan, decision.tag, tag_vid)
        waits = f"; {_waiting(target, 'egress', frame, now_ns)}" if target.egress is not None else ""
        steps.append(Step("output", rule, f"sent to {target.name}{_FORMS.get(form, '')}{waits}"))
    return steps


def _dropped(reason: DropReason, where: str) -> Step:
    return Step("output", f"output.drop_{reason.name.lower()}", f"{EXPLANATION[reason]}{where}")
