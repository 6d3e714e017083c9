"""The rule chain of one frame: what a switch would do with it, told stage by stage, without doing it.

The chain is read off the decision that `decide` makes for traffic too; nothing here decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_vswitch.domain.decision import Decision, Rule, decide
from lamina_vswitch.domain.drop import EXPLANATION
from lamina_vswitch.domain.fdb import Learned
from lamina_vswitch.domain.frame import HEADER_BYTES, TAG_BYTES, Header, format_mac, untagged
from lamina_vswitch.domain.topology import Port, Switch


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that the frame met: stage of the pipeline, rule that held, and the values that decided, in words."""

    stage: str
    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class Trace:
    """What would happen to a frame. `outputs` are port names, `frame` the bytes that would leave; `vlan` 0 to 4094."""

    decision: Decision
    vlan: int
    outputs: tuple[str, ...]
    frame: bytes
    steps: tuple[Step, ...]


def trace(switch: Switch, port: Port, frame: bytes, now_ns: int) -> Trace:
    """Return what `switch` would do with `frame` if it entered at `port` now. Changes nothing that can be observed."""
    return tell(switch, port, frame, decide(switch, port, frame, now_ns, switch.fdb.would_learn), now_ns)


def tell(switch: Switch, port: Port, frame: bytes, decision: Decision, now_ns: int) -> Trace:
    """Return the rule chain of a decision that was made about `frame`, which entered at `port`."""
    outputs = tuple(switch.ports[slot].name for slot in decision.outputs)
    classified = decision.learned is not None or decision.rule is Rule.SOURCE_INVALID
    leaves = b"" if decision.drop is not None else frame
    if leaves and decision.header is not None and decision.header.tag_vid is not None:
        leaves = untagged(frame)
    steps = _chain(switch, port, frame, decision, now_ns)
    return Trace(decision, port.vlan if classified else 0, outputs, leaves, tuple(steps))


def _chain(switch: Switch, port: Port, frame: bytes, decision: Decision, now_ns: int) -> list[Step]:
    """Return the steps; each stage adds one, and the stage of the deciding rule is the last before `output`."""
    if decision.rule is Rule.INGRESS_PORT_DOWN:
        return [_ingress_down(port), *_output(switch, decision)]
    if decision.rule is Rule.INGRESS_MIRROR_PORT:
        detail = f"{port.name} is the destination of a mirror and takes part in nothing else"
        return [Step("ingress", decision.rule.value, detail), *_output(switch, decision)]
    steps = [Step("ingress", "ingress.port_up", f"{port.name} has its link up and is attached")]
    header = decision.header
    if header is None:
        longest = switch.mtu_bytes + HEADER_BYTES
        detail = f"{len(frame)} bytes; {HEADER_BYTES} to {longest} are allowed, {TAG_BYTES} more with a tag"
        return [*steps, Step("parse", decision.rule.value, detail), *_output(switch, decision)]
    steps.append(Step("parse", "parse.accepted", _describe(header, len(frame))))
    steps.append(_vlan(port, header, decision))
    if decision.rule is not Rule.VLAN_MISMATCH:
        steps.append(_source(header, decision))
    if decision.learned is not None:
        steps.append(_learn(switch, port, header, decision.learned))
        steps.append(_lookup(switch, port, header, decision, now_ns))
    return [*steps, *_output(switch, decision)]


def _ingress_down(port: Port) -> Step:
    cause = "nothing is attached" if port.link_up else "its link is down"
    return Step("ingress", Rule.INGRESS_PORT_DOWN.value, f"{port.name} is not up: {cause}")


def _describe(header: Header, size: int) -> str:
    tag = "untagged" if header.tag_vid is None else f"tagged with VLAN id {header.tag_vid}"
    return f"{format_mac(header.src)} to {format_mac(header.dst)}, type 0x{header.ethertype:04x}, {tag}, {size} bytes"


def _vlan(port: Port, header: Header, decision: Decision) -> Step:
    if decision.rule is Rule.VLAN_MISMATCH:
        return Step("vlan", decision.rule.value, f"tag says VLAN {header.tag_vid}, access VLAN is {port.vlan}")
    if header.tag_vid is None:
        return Step("vlan", "vlan.access", f"untagged, so in access VLAN {port.vlan}")
    rule = "vlan.own_tag" if header.tag_vid else "vlan.priority_tag"
    return Step("vlan", rule, f"VLAN id {header.tag_vid} fits access VLAN {port.vlan}; the tag is taken off")


def _source(header: Header, decision: Decision) -> Step:
    mac = format_mac(header.src)
    if decision.rule is Rule.SOURCE_INVALID:
        return Step("source", decision.rule.value, f"{mac} cannot be the address of one station")
    return Step("source", "source.station", f"{mac} is a station address")


def _learn(switch: Switch, port: Port, header: Header, learned: Learned) -> Step:
    place = f"{format_mac(header.src)} in VLAN {port.vlan}"
    words = {
        Learned.NEW: f"{place} becomes known at {port.name}",
        Learned.REFRESHED: f"{place} is known at {port.name}; its age starts anew",
        Learned.MOVED: f"{place} moves to {port.name}",
        Learned.FULL: f"{place} is not learned: the table holds {switch.fdb.limit} entries, its limit",
        Learned.STATIC: f"{place} has a static entry at this port",
        Learned.STATIC_ELSEWHERE: f"{place} has a static entry at another port, which stays",
    }
    return Step("learn", f"learn.{learned.value}", words[learned])


def _lookup(switch: Switch, port: Port, header: Header, decision: Decision, now_ns: int) -> Step:
    mac = format_mac(header.dst)
    entry = decision.entry
    if entry is not None:
        kind = "static" if entry.static else f"{now_ns - entry.seen_ns} ns old"
        detail = f"{mac} in VLAN {port.vlan} is at {switch.ports[entry.port].name} ({kind})"
    elif decision.rule is Rule.LINK_LOCAL:
        detail = f"{mac} is a link-local address"
    elif decision.rule is Rule.GROUP:
        detail = f"{mac} is a group address: every other port of VLAN {port.vlan} gets a copy"
    else:
        detail = f"{mac} is not known in VLAN {port.vlan}: every other port of the VLAN gets a copy"
    return Step("lookup", decision.rule.value, detail)


def _output(switch: Switch, decision: Decision) -> list[Step]:
    if decision.drop is not None:
        return [Step("output", f"output.drop_{decision.drop.name.lower()}", EXPLANATION[decision.drop])]
    rule = "output.flood" if decision.flooded else "output.forward"
    return [Step("output", rule, f"sent to {switch.ports[slot].name}") for slot in decision.outputs]
