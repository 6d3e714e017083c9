"""What the event log hears of traffic: new addresses, moves, drops, full tables, spoofed addresses; with the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.frames.header import HEADER_BYTES, format_mac
from lamina_vswitch.domain.sampling import Notice, Sampler
from lamina_vswitch.domain.switch.forwarding import Forwarding
from lamina_vswitch.domain.switch.topology import Port, Switch


class Notices:
    """Turns the outcome of batches into notices, at most one a second for each object and event."""

    def __init__(self, sampler: Sampler, send: Callable[[Notice], None]) -> None:
        self._sampler = sampler
        self._send = send

    def forwarded(self, switch: Switch, port: Port, result: Forwarding, now_ns: int) -> None:
        """Report what a batch met, but for its drops."""
        if result.learned:
            inputs = (*_addresses(result.learned[0]), ("vlan", str(port.vlan)))
            self._report(port.name, "mac.learned", "learn.new", len(result.learned), inputs, now_ns)
        if result.moves:
            self._moved(switch, result, now_ns)
        if result.refused:
            inputs = (*_addresses(result.refused[0]), ("vlan", str(port.vlan)), ("limit", str(switch.fdb.limit)))
            self._report(switch.name, "mac.refused", "learn.full", len(result.refused), inputs, now_ns)
        if result.spoofed:
            inputs = (*_addresses(result.spoofed[0]), ("vlan", str(port.vlan)))
            self._report(port.name, "mac.spoofed", "learn.static_elsewhere", len(result.spoofed), inputs, now_ns)

    def dropped(self, port: Port, reason: DropReason, frames: Sequence[bytes], now_ns: int) -> None:
        """Report drops that are counted at `port`."""
        word = reason.name.lower()
        inputs = (*_addresses(frames[0]), ("vlan", str(port.vlan)), ("why", EXPLANATION[reason]))
        self._report(port.name, f"frame.dropped.{word}", f"drop.{word}", len(frames), inputs, now_ns)

    def _moved(self, switch: Switch, result: Forwarding, now_ns: int) -> None:
        move = result.moves[0]
        old = switch.ports[move.old_port].name
        new = switch.ports[move.new_port].name
        inputs = (("mac", format_mac(move.mac)), ("vlan", str(move.vlan)), ("from", old), ("to", new))
        self._report(switch.name, "mac.moved", "learn.moved", len(result.moves), inputs, now_ns)

    def _report(
        self, name: str, event: str, rule: str, count: int, inputs: tuple[tuple[str, str], ...], now_ns: int
    ) -> None:
        stands_for = self._sampler.sample(name, event, count, now_ns)
        if stands_for:
            self._send(Notice(name, event, rule, tuple(sorted((*inputs, ("count", str(stands_for)))))))


def _addresses(frame: bytes) -> tuple[tuple[str, str], ...]:
    """Return what can be said of a frame that may be too short to have addresses."""
    size = ("bytes", str(len(frame)))
    if len(frame) < HEADER_BYTES:
        return (size,)
    return (size, ("dst", format_mac(frame[:6])), ("src", format_mac(frame[6:12])))
