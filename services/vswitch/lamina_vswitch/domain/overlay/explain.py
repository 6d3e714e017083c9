"""What an overlay would do with a frame, told without doing it: nothing is counted, learned, asked or sent.

It asks the ends and the tunnel the very questions that they ask themselves (`end.choose`, `end.judge`, `tunnel.read`).
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_net.packets import ethernet
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.frames.header import format_mac
from lamina_vswitch.domain.overlay.arrival import Kind
from lamina_vswitch.domain.overlay.end import TunnelledEnd
from lamina_vswitch.domain.overlay.tunnel import Tunnel, datagram_of, hop_to
from lamina_vswitch.domain.switch.trace import Step


class Outwards(NamedTuple):
    """A frame of the VLAN on its way out: rules, why it goes nowhere, and the frames to the network below."""

    steps: tuple[Step, ...]
    drop: DropReason | None = None
    frames: tuple[bytes, ...] = ()


class Inwards(NamedTuple):
    """A frame of the network below: rules, why it goes nowhere, the end whose it is, if any, and what goes into its
    VLAN, empty for nothing."""

    steps: tuple[Step, ...]
    drop: DropReason | None = None
    end: TunnelledEnd | None = None
    frame: bytes = b""


def explain_outwards(tunnel: Tunnel, sender: TunnelledEnd, frame: bytes, now_ns: int) -> Outwards:
    """Tell what an end would do with an untagged, finished frame of its VLAN."""
    chosen = sender.end.choose(frame, now_ns)
    if isinstance(chosen, DropReason):
        return Outwards((_drop(chosen),), chosen)
    mac, count = format_mac(frame[0:6]), len(chosen)
    if sender.end.is_known(frame, now_ns):
        steps = [Step("overlay", "overlay.known", f"{mac} is behind {format_address(chosen[0])}")]
    else:
        steps = [Step("overlay", "overlay.flood", f"{mac} is behind no known end: each of {count} gets a copy")]
    known = {each.address: each.mac for each in tunnel.neighbours(now_ns) if each.mac is not None}
    datagram, frames, lost = datagram_of(sender, frame), [], 0
    for number, address in enumerate(chosen):
        hop = hop_to(address, sender.way)
        if not hop:
            lost += 1
            steps.append(_drop(DropReason.NO_ROUTE, f"{format_address(address)} is in another subnet"))
        elif hop not in known:
            detail = f"waits while {format_address(hop)} is asked for by ARP"
            steps.append(Step("tunnel", "tunnel.neighbor_unknown", detail))
        else:
            detail = f"goes to {format_address(address)}, network {sender.end.vni}, by {format_mac(known[hop])}"
            steps.append(Step("tunnel", "tunnel.sent", detail))
            identification = (tunnel.next_identification + number - lost - 1) % 65535 + 1
            packet = tunnel.packet(address, datagram, identification)
            frames.append(ethernet.build(known[hop], tunnel.mac, ethernet.IPV4, packet))
    return Outwards(tuple(steps), DropReason.NO_ROUTE if lost == count else None, tuple(frames))


def explain_inwards(tunnel: Tunnel, frame: bytes) -> Inwards:
    """Tell what a tunnel would do with a frame of the network below."""
    arrival = tunnel.read(frame)
    if arrival.kind is Kind.FOR_OTHERS:
        return _taken("not_for_it", f"is nothing for a tunnel at {format_address(tunnel.address)}")
    if arrival.resolution is not None:
        return _taken("arp", "is ARP, which the tunnel heeds, and answers when it is asked for its address")
    if arrival.kind is Kind.ECHO:
        return _taken("echo", f"{format_address(tunnel.address)} answers the echo request")
    if arrival.end is None or arrival.drop is not None:
        reason = arrival.drop or DropReason.TUNNEL_MALFORMED
        return Inwards((_drop(reason),), reason, arrival.end)
    end, peer = arrival.end.end, format_address(arrival.address)
    carried = Step("tunnel", "tunnel.carried", f"carries a frame of network {end.vni} from {peer}")
    judged = end.judge(arrival.address, arrival.frame)
    if isinstance(judged, DropReason):
        return Inwards((carried, _drop(judged)), judged, arrival.end)
    learned = "learned from" if not end.learning.nothing else "taken"
    step = Step("overlay", "overlay.accepted", f"{peer} may send into the VLAN; {format_mac(judged.src)} is {learned}")
    return Inwards((carried, step), end=arrival.end, frame=arrival.frame)


def _taken(rule: str, detail: str) -> Inwards:
    return Inwards((Step("tunnel", f"tunnel.{rule}", detail),))


def _drop(reason: DropReason, detail: str = "") -> Step:
    text = f"{EXPLANATION[reason]}: {detail}" if detail else EXPLANATION[reason]
    return Step("overlay", f"overlay.drop_{reason.name.lower()}", text)
