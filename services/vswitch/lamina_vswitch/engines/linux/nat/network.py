"""One network that the kernel translates: its device, its rules, what is tracked of it, the ports that lead into it.

A forwarded port is held by a socket that nobody reads: so no program of the machine gets it, and who has it is refused.

Source: docs/adr/0051-translation-by-the-kernel.md.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from lamina_net.packets.address import Subnet, format_address
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition
from lamina_vswitch.domain.nat.outside.kernel import DESTINATION_CHANGED, Tracked, entry_of
from lamina_vswitch.domain.nat.packets.packet import TCP, UDP
from lamina_vswitch.domain.nat.sockets.host import HostError
from lamina_vswitch.engines.linux.nat import conntrack
from lamina_vswitch.engines.linux.nat.machine import NatMachine
from lamina_vswitch.engines.linux.nat.rules import REASONS, NatWanted, drops_counter, flows_counter
from lamina_vswitch.engines.linux.nat.tun import Tun
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.refusal import KernelRefusal

_SOCKET_KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
_ERRORS = {
    errno.EADDRINUSE: HostError.IN_USE,
    errno.EACCES: HostError.FORBIDDEN,
    errno.EPERM: HostError.FORBIDDEN,
    errno.EADDRNOTAVAIL: HostError.NO_ADDRESS,
    errno.EMFILE: HostError.EXHAUSTED,
    errno.ENFILE: HostError.EXHAUSTED,
    errno.ENOBUFS: HostError.EXHAUSTED,
    errno.ENOMEM: HostError.EXHAUSTED,
}


class Look:
    """A `KernelLook`: `netlink` is its own and ends with it, `inside` the subnets, `wall_ns` the machine's time now."""

    def __init__(self, netlink: Netlink, inside: Sequence[Subnet], wall_ns: int) -> None:
        self._netlink, self._inside, self._wall_ns = netlink, inside, wall_ns

    def entries(self, now_ns: int) -> list[Entry]:
        """Return what the kernel tracks of the network, in no order."""
        found: list[Entry] = []
        with closing(self._netlink):
            for flow in conntrack.tracked(self._netlink, self._inside):
                entry = entry_of(flow, self._inside, len(found) + 1, now_ns, self._wall_ns)
                if entry is not None:
                    found.append(entry)
        return found

    def flush(self, inside: int | None) -> int:
        """Forget what the kernel tracks of an inside address, or all; return how many."""
        with closing(self._netlink):
            flows = conntrack.tracked(self._netlink, self._inside)
            return conntrack.forget(self._netlink, [flow for flow in flows if _is_of(flow, inside)])


class KernelNat:
    """A `KernelTranslation`; `wall_ns` is the machine's clock.

    Everything raises Unavailable `KERNEL_REFUSED` where the kernel does not do it.
    """

    def __init__(self, machine: NatMachine, wanted: NatWanted, mtu_bytes: int, wall_ns: Callable[[], int]) -> None:
        """Make device and rules. Raises also PermissionDenied `DEVICE_FORBIDDEN`, `SETTINGS_FORBIDDEN`, and
        FailedPrecondition `NFT_REFUSED`."""
        self._machine, self._wall_ns = machine, wall_ns
        self._wanted = wanted
        self._held: dict[str, socket.socket] = {}
        self._is_closed = False
        self._seen: dict[DropReason, int] = {}
        self._before: dict[DropReason, int] = {}
        self.tun = Tun(machine.namespace, machine.netlink, wanted.device, mtu_bytes)
        try:
            self.tun.set_address(wanted.gateway)
            self.tun.route(wanted.inside)
            with machine.locked():
                alone = machine.before().get("net/ipv4/ip_forward") == "0"
                self._wanted = replace(wanted, alone=alone)
                machine.set(self._wanted)
        except BaseException:
            self.tun.close()
            machine.unset(wanted.device)
            raise

    def take(self, wanted: NatWanted) -> None:
        """Take other limits, destinations and ways of the same device; forwards stay what they are."""
        self._set(replace(wanted, forwards=self._wanted.forwards, alone=self._wanted.alone))
        self.tun.route(wanted.inside)

    def close(self) -> None:
        """Take everything away, and forget what was tracked. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.tun.close()
        for held in self._held.values():
            held.close()
        self._held.clear()
        try:
            self._machine.unset(self._wanted.device)
        finally:
            self.look().flush(None)

    def mend(self) -> bool:
        """Set the rules again if somebody took them away; tell whether that was so. Counters begin anew."""
        if not self._machine.lacks(self._wanted.device):
            return False
        self._machine.set(self._wanted)
        return True

    def drops(self) -> dict[DropReason, int]:
        """Return what ended in the table, by reason; without those for which nothing did."""
        for reason in REASONS:
            now = self._counted(drops_counter(reason))
            if now < self._seen.get(reason, 0):  # somebody took the rules away, and they were set again
                self._before[reason] = self._before.get(reason, 0) + self._seen[reason]
            self._seen[reason] = now
        counts = {reason: self._before.get(reason, 0) + self._seen[reason] for reason in REASONS}
        return {reason: count for reason, count in counts.items() if count}

    # As a `KernelTranslation`

    def look(self) -> Look:
        """Return a look at what the kernel tracks of the network, by a socket of its own."""
        return Look(self._machine.reader(), self._wanted.inside, self._wall_ns())

    def open_port(self, wanted: ForwardDefinition) -> Endpoint | HostError:
        """Let a port of the machine lead inside; port 0 takes a free one. Raises FailedPrecondition `NFT_REFUSED`."""
        try:
            with self._machine.namespace.inside():
                held = socket.socket(socket.AF_INET, _SOCKET_KINDS[wanted.protocol])
        except OSError as error:
            return _ERRORS.get(error.errno or 0, HostError.UNREACHABLE)
        try:
            held.bind((format_address(wanted.outside[0]), wanted.outside[1]))
            at = (wanted.outside[0], held.getsockname()[1])
            forward = replace(wanted, outside=at)
            self._set(replace(self._wanted, forwards=(*self._wanted.forwards, forward)))
        except OSError as error:
            held.close()
            return _ERRORS.get(error.errno or 0, HostError.UNREACHABLE)
        except BaseException:
            held.close()
            raise
        self._held[wanted.port_forward] = held
        return at

    def close_port(self, port_forward: str) -> None:
        """Give a port back; connections that came through it go on, entries of UDP end. Idempotent."""
        held = self._held.pop(port_forward, None)
        if held is None:
            return
        gone = [each for each in self._wanted.forwards if each.port_forward == port_forward]
        self._set(replace(self._wanted, forwards=tuple(each for each in self._wanted.forwards if each not in gone)))
        held.close()
        ports = [each.outside[1] for each in gone if each.protocol == UDP]
        ended = [flow for flow in self._flows() if flow.protocol == UDP and flow.destination[1] in ports]
        conntrack.forget(self._machine.netfilter, [flow for flow in ended if flow.status & DESTINATION_CHANGED])

    def flows(self, port_forward: str) -> int:
        """Return how many flows came through a forwarded port."""
        if port_forward not in self._held:
            return 0
        return self._counted(flows_counter(port_forward))

    def resize(self, mtu_bytes: int) -> None:
        """Take another MTU of the VLAN; a device that somebody took away needs none."""
        try:
            self.tun.resize(mtu_bytes)
        except KernelRefusal as refusal:
            if refusal.number != errno.ENODEV:
                raise

    def _counted(self, counter: str) -> int:
        """Return what a counter has counted; 0 while somebody has taken it away, until it is set again."""
        try:
            return self._machine.packets(self._wanted.device, counter)
        except KernelRefusal as refusal:
            if refusal.number != errno.ENOENT:
                raise
            return 0

    def _set(self, wanted: NatWanted) -> None:
        old, new = self._wanted, wanted
        recount = (old.entry_limit, old.per_address) != (new.entry_limit, new.per_address)
        here = {each.port_forward for each in new.forwards}
        gone = tuple(each.port_forward for each in old.forwards if each.port_forward not in here)
        self._machine.set(wanted, recount=recount, gone=gone)
        self._wanted = wanted

    def _flows(self) -> Iterator[Tracked]:
        return conntrack.tracked(self._machine.netfilter, self._wanted.inside)


def _is_of(flow: Tracked, inside: int | None) -> bool:
    return inside is None or inside in (flow.source[0], flow.answer_source[0])
