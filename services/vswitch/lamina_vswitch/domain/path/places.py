"""What the way of a frame leads through behind the ports of switches: routers, overlays, tunnels, wires."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lamina_vswitch.domain.network.router.explain import explain_frame, explain_packet
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.domain.overlay.end import TunnelledEnd
from lamina_vswitch.domain.overlay.explain import explain_inwards, explain_outwards
from lamina_vswitch.domain.overlay.tunnel import Tunnel
from lamina_vswitch.domain.path.walk import Hop, Place, Stop, Verdict
from lamina_vswitch.domain.switch.trace import Step


class End(NamedTuple):
    """A port as a way goes through it: its name, its slot, its VLAN."""

    port: str
    slot: int
    vlan: int = 0


class RouterPlace(NamedTuple):
    """A router: name of its network, the router, its port; `router_of` finds that of another network by its id."""

    name: str
    router: Router
    port: End
    router_of: Callable[[str], Place | None]

    def follow(self, stop: Stop, number: int, now_ns: int) -> tuple[Hop, list[Stop]]:
        """Tell what the router would do."""
        handling = (explain_packet if stop.routed else explain_frame)(self.router, stop.data, now_ns)
        following = [Stop(number, frame, self.port.slot) for frame in handling.frames]
        other = self.router_of(handling.to_network) if handling.to_network else None
        if other is not None:
            following.append(Stop(number, handling.packet, place=other, routed=True))
        verdict = Verdict.FORWARDED if following else Verdict.CONSUMED
        if handling.drop is not None:
            verdict = Verdict.DROPPED
        outputs = (self.port.port,) if handling.frames else ()
        frame = handling.frames[0] if handling.frames else b""
        hop = Hop(self.name, stop.parent, verdict, handling.drop, self.port.vlan, outputs, frame, handling.steps)
        return hop, following


class OverlayPlace(NamedTuple):
    """An overlay, seen from its VLAN: its name, its end, its tunnel and the port of that, its VLAN."""

    name: str
    end: TunnelledEnd
    tunnel: Tunnel
    below: End
    vlan: int

    def follow(self, stop: Stop, number: int, now_ns: int) -> tuple[Hop, list[Stop]]:
        """Tell to which ends the frame would go."""
        told = explain_outwards(self.tunnel, self.end, stop.data, now_ns)
        verdict = Verdict.FLOODED if len(told.frames) > 1 else Verdict.FORWARDED if told.frames else Verdict.CONSUMED
        if told.drop is not None:
            verdict = Verdict.DROPPED
        outputs = (self.below.port,) if told.frames else ()
        first = told.frames[0] if told.frames else b""
        hop = Hop(self.name, stop.parent, verdict, told.drop, self.vlan, outputs, first, told.steps)
        return hop, [Stop(number, frame, self.below.slot) for frame in told.frames]


class TunnelPlace(NamedTuple):
    """A tunnel, seen from the network below: its uplink's name, the tunnel, its overlays with their ports."""

    uplink: str
    tunnel: Tunnel
    overlays: Sequence[tuple[str, TunnelledEnd, End]]

    def follow(self, stop: Stop, number: int, now_ns: int) -> tuple[Hop, list[Stop]]:
        """Tell into which VLAN the frame would go. What is no overlay's is decided at the uplink."""
        told = explain_inwards(self.tunnel, stop.data)
        verdict = Verdict.CONSUMED if told.drop is None else Verdict.DROPPED
        owner = next((each for each in self.overlays if each[1] is told.end), None)
        if owner is None:
            return Hop(self.uplink, stop.parent, verdict, told.drop, 0, (), b"", told.steps), []
        name, _, port = owner
        if not told.frame:
            return Hop(name, stop.parent, verdict, told.drop, port.vlan, (), b"", told.steps), []
        hop = Hop(name, stop.parent, Verdict.FORWARDED, None, port.vlan, (port.port,), told.frame, told.steps)
        return hop, [Stop(number, told.frame, port.slot)]


class WirePlace(NamedTuple):
    """The wire of an uplink: the uplink's name, what it is in words, and the port at its other end when that is one of
    this host's."""

    uplink: str
    words: str
    far: End | None = None

    def follow(self, stop: Stop, number: int, now_ns: int) -> tuple[Hop, list[Stop]]:
        """Tell that the frame leaves, or where it comes in again."""
        if self.far is None:
            step = Step("uplink", "uplink.leaves_host", f"leaves the host by {self.words}")
            return Hop(self.uplink, stop.parent, Verdict.FORWARDED, None, 0, (), stop.data, (step,)), []
        step = Step("uplink", "uplink.wire", f"goes over {self.words} to {self.far.port}")
        hop = Hop(self.uplink, stop.parent, Verdict.FORWARDED, None, 0, (self.far.port,), stop.data, (step,))
        return hop, [Stop(number, stop.data, self.far.slot)]
