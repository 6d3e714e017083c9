"""The outside as the kernel of this machine: it translates and tracks; packets go to it as they are.

What the router has no way for goes to the kernel, and what the kernel sends to the network comes back translated. What
it tracks is told in the terms of the table (`Entry`), so that users see one list, whoever translates.

Source: RFC 3022; include/uapi/linux/netfilter/nf_conntrack_common.h, nf_conntrack_tcp.h of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lamina_net.packets import icmp
from lamina_net.packets.address import Subnet, is_loopback, is_unicast
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry, Flows
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition
from lamina_vswitch.domain.nat.packets.outcome import IcmpError, Outcome, dropped
from lamina_vswitch.domain.nat.packets.packet import ICMP, TCP, UDP, read
from lamina_vswitch.domain.nat.packets.tracking import SECOND_NS, State, Track, timeout_seconds
from lamina_vswitch.domain.nat.sockets.host import HostError
from lamina_vswitch.domain.network.router.explain import Translation
from lamina_vswitch.domain.switch.trace import Step

SEEN_REPLY, DESTINATION_CHANGED = 1 << 1, 1 << 5
"""Bits of `Tracked.status`: packets went both ways; the destination was rewritten."""
_PROHIBITED = (icmp.UNREACHABLE, icmp.ADMINISTRATIVELY_PROHIBITED)
_TCP_STATES = {
    3: State.ESTABLISHED,
    4: State.CLOSING,  # FIN_WAIT
    5: State.CLOSING,  # CLOSE_WAIT
    6: State.CLOSED,  # LAST_ACK
    7: State.CLOSED,  # TIME_WAIT
    8: State.CLOSED,  # CLOSE
}
"""The contract's state by the kernel's; all others are of a handshake."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """One flow as the kernel tracks it, both directions as their packets come: source, destination.

    `identity` is what the kernel takes to forget it. `remaining_seconds` is how long it may be silent still, `began_ns`
    the time of its first packet on the machine's wall clock (0: it was not noted). The port of an ICMP echo is its
    identifier at the side that asks, and 0 at the other.
    """

    protocol: int
    source: Endpoint
    destination: Endpoint
    answer_source: Endpoint
    answer_destination: Endpoint
    status: int = 0
    tcp_state: int = 0
    remaining_seconds: int = 0
    began_ns: int = 0
    sent: tuple[int, int] = (0, 0)
    answered: tuple[int, int] = (0, 0)
    identity: bytes = b""


class KernelLook(Protocol):
    """One look at what the kernel tracks of one network. It takes its time, and may be taken in any thread, once."""

    def entries(self, now_ns: int) -> list[Entry]:
        """Return what it tracks of the network, in no order."""

    def flush(self, inside: int | None) -> int:
        """Forget what it tracks of an inside address, or all; return how many."""


class KernelTranslation(Protocol):
    """The kernel's part of one network."""

    def look(self) -> KernelLook:
        """Return a look at the network as it is now."""

    def open_port(self, wanted: ForwardDefinition) -> Endpoint | HostError:
        """Let a port of the machine lead inside; port 0 takes a free one. Raises FailedPrecondition `NFT_REFUSED`."""

    def close_port(self, port_forward: str) -> None:
        """Give a port back; connections that came through it go on. Idempotent."""

    def flows(self, port_forward: str) -> int:
        """Return how many flows came through a forwarded port."""

    def resize(self, mtu_bytes: int) -> None:
        """Take another MTU of the VLAN."""


def leaving(packet: bytes, *, to_gateway: bool = False) -> Outcome:
    """Return what becomes of a packet that the router gives to the kernel.

    With `to_gateway` it is one to the router's own address: the kernel knows whether it answers a flow that it tracks,
    and refuses it if not. What the translator cannot read is then the router's own.
    """
    view = read(packet)
    if isinstance(view, DropReason):
        return Outcome(own=(packet,)) if to_gateway else dropped(view, packet)
    if not is_unicast(view.key.dst) or is_loopback(view.key.dst):
        # The rules say so too; but while somebody has them flushed, the machine's own services must not be in reach.
        return dropped(DropReason.NAT_DESTINATION_FORBIDDEN, packet, IcmpError(*_PROHIBITED, packet))
    return Outcome(outside=(packet,))


def explain_kernel(packet: bytes) -> Translation:
    """Tell what `leaving` would do with a packet: what the kernel makes of it then, only the kernel knows."""
    view = read(packet)
    if isinstance(view, DropReason):
        step = Step("nat", f"nat.drop_{view.name.lower()}", "no translator reads it")
        return Translation((step,), view)
    detail = "goes to the kernel of this machine, which translates it, tracks it, and may refuse it"
    return Translation((Step("nat", "nat.kernel", detail),), None)


def entry_of(flow: Tracked, inside: Sequence[Subnet], number: int, now_ns: int, wall_ns: int) -> Entry | None:
    """Return a tracked flow as an entry of a network, None if it is none of its.

    `inside` is where its devices are; `now_ns` is the time of the stack, `wall_ns` that of the machine.
    """
    if flow.protocol not in (TCP, UDP, ICMP):
        return None
    by_inside = _is_in(inside, flow.source[0])
    if not by_inside and not _is_in(inside, flow.answer_source[0]):
        return None
    state = _state_of(flow)
    track = Track(flow.protocol, state, 1 if by_inside else 2)
    left_ns = (flow.remaining_seconds - timeout_seconds(flow.protocol, state)) * SECOND_NS
    began_ns = now_ns - max(0, wall_ns - flow.began_ns) if flow.began_ns else now_ns
    via = flow.destination if flow.status & DESTINATION_CHANGED else None
    first, second = Flows(*flow.sent), Flows(*flow.answered)
    if by_inside:
        ends = (flow.source, flow.destination, flow.answer_destination, flow.answer_source)
        return Entry(number, flow.protocol, *ends, track, began_ns, now_ns + left_ns, via, first, second)
    ends = (flow.answer_source, flow.answer_destination, flow.destination, flow.source)
    return Entry(number, flow.protocol, *ends, track, began_ns, now_ns + left_ns, via, second, first)


def _is_in(inside: Sequence[Subnet], address: int) -> bool:
    return any(address in each for each in inside)


def _state_of(flow: Tracked) -> State:
    if flow.protocol == TCP:
        return _TCP_STATES.get(flow.tcp_state, State.OPENING)
    return State.REPLIED if flow.status & SEEN_REPLY else State.UNREPLIED
