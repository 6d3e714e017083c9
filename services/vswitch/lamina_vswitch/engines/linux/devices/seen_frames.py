"""What is told of a frame that only the kernel had: the kernel's word where it has one, else that of the rules.

The rules of nf_tables tell why they dropped a frame. A bridge tells nothing: of what it keeps, the rules of
`domain/switch/decision.py` say why, read over the mirror of the kernel's table, as it is when the frame is told of.
"""

from __future__ import annotations

from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.ingress import admitted
from lamina_vswitch.domain.switch.decision import Decision, decide
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.engines.linux.devices.watches import Seen
from lamina_vswitch.engines.model.watching import Watching

_OF_BRIDGES = frozenset(
    {
        DropReason.SOURCE_INVALID,
        DropReason.LINK_LOCAL,
        DropReason.SAME_PORT,
        DropReason.NO_DESTINATION,
        DropReason.DESTINATION_DOWN,
        DropReason.ISOLATED,
        DropReason.MIRROR_PORT,
    }
)
"""Reasons of bridges. Any other is nf_tables', which has let the frame pass."""


def tell_seen(watching: Watching, switch: Switch, port: Port, seen: Seen, now_ns: int) -> None:
    """Tell the observer of a frame at a port that is a device of the kernel, and record it where one is due.

    Counters are left alone: the kernel has counted. What the kernel cut and summed further on, but could not be
    finished here, is told as missed.
    """
    reason, decision = seen.reason, None
    if watching.observer is None:
        return
    good, _ = admitted([seen.frame], switch.mtu_bytes)
    if not good:
        watching.observer.missed(port, seen.direction, 1, now_ns)
        return
    frame = good[0]
    if seen.direction is Direction.EGRESS:
        watching.observer.passed(port, Direction.EGRESS, [frame], now_ns)
        return
    if reason is None:
        decision = _kept(switch, port, frame, now_ns)
        reason = decision.drop if decision is not None else None
    if reason is not None:
        watching.lost(switch, port, Direction.INGRESS, reason, [frame], now_ns, decision)
        return
    if now_ns >= port.record_due_ns:
        watching.entering(switch, port, [frame], now_ns)
    watching.observer.passed(port, Direction.INGRESS, [frame], now_ns)


def _kept(switch: Switch, port: Port, frame: bytes, now_ns: int) -> Decision | None:
    """Return what the rules say of a frame that a bridge keeps; None for any other."""
    decision = decide(switch, port, frame, now_ns)
    return decision if decision.drop in _OF_BRIDGES else None
