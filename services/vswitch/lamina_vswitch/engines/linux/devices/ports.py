"""Ports that are devices of the kernel: frames between two of them never come into this process.

The device is one end of a pair. The other end is an interface of the machine, for a user to give an address to, or to
move into the namespace of a container. What a policy says is rules of nf_tables at the port's legs
(`engines/linux/nft/rules.py`) and token buckets (`rates.py`); tags are put on and taken off by programs
(`engines/linux/bpf/trunk.py`).

Source: veth(4), packet(7); include/uapi/linux/if_link.h of Linux 6.18 (`struct rtnl_link_stats64`).
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lamina_kit.errors import FailedPrecondition, LaminaError, PermissionDenied
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.engines.linux.bpf.trunk import Tags
from lamina_vswitch.engines.linux.devices.access import AccessDevices
from lamina_vswitch.engines.linux.devices.trunk import Leg, TrunkLegs
from lamina_vswitch.engines.linux.devices.watches import DeviceWatches
from lamina_vswitch.engines.linux.namespace import Namespace
from lamina_vswitch.engines.linux.netlink import links
from lamina_vswitch.engines.linux.netlink.rates import Rates
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.netlink.veth import add_pair, counts, set_up
from lamina_vswitch.engines.linux.nft.rules import FilteredPort
from lamina_vswitch.engines.linux.nft.table import NftTable
from lamina_vswitch.engines.linux.refusal import KernelRefusal, unless_gone

LONGEST_MTU = 9018
"""Of devices that only hand frames on, tags and all."""


@dataclass(slots=True)
class _Device:
    """One: index of its end here, a socket to send by, and how tags are read at it.

    `mtu_bytes` is that of its end here; the other end is its user's. `before` is what the port had counted before;
    `counts` what the device had when it was asked last, frames and bytes in and out; `mismatched` what was in no VLAN
    of the port as it read tags before. `vlans` is what a trunk counted for each VLAN and nobody took yet; `told` is
    what its programs had counted then.
    """

    index: int
    socket: socket.socket
    mtu_bytes: int
    before: Counters
    tags: Tags | None = None
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    mismatched: int = 0
    vlans: list[tuple[int, Counters]] = field(default_factory=list)
    told: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)


class DevicePorts:
    """The ports of an engine that are devices of the kernel, by slot. Its calls raise Unavailable `KERNEL_REFUSED`."""

    def __init__(self, netlink: Netlink, namespace: Namespace) -> None:
        self._netlink = netlink
        self._namespace = namespace
        self._trunks, self._accesses = TrunkLegs(netlink), AccessDevices(netlink)
        self._out, self._in = Rates(netlink), Rates(netlink)
        self._rules = NftTable(namespace)
        self.watches = DeviceWatches(netlink, namespace)
        self._devices: dict[int, _Device] = {}
        self._detours: dict[int, tuple[int, int]] = {}

    def __contains__(self, slot: int) -> bool:
        return slot in self._devices

    def plug(self, slot: int, interface: str, mtu_bytes: int, before: Counters, *, up: bool) -> None:
        """Make the pair: `interface` in this process's namespace, up if wanted, and the port's end.

        Raises FailedPrecondition `DEVICE_IN_USE`, PermissionDenied `DEVICE_FORBIDDEN`.
        """
        name = f"d{slot}"
        outside = Netlink()
        try:
            add_pair(outside, interface, name, mtu_bytes, self._namespace.file)
            try:
                index = links.index_of(self._netlink, name)
                links.reserve(self._netlink, index)
                set_up(self._netlink, index, up=True)
                if up:
                    set_up(outside, links.index_of(outside, interface), up=True)
                with self._namespace.inside():
                    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
                    end.bind((name, 0))
            except BaseException:
                links.remove(outside, links.index_of(outside, interface))
                raise
        except KernelRefusal as refusal:
            raise _for_user(interface, refusal) from refusal
        finally:
            outside.close()
        self._devices[slot] = _Device(index, end, mtu_bytes, before)

    def unplug(self, slot: int) -> None:
        """Remove the pair, and everything that was set at it; its legs are gone already."""
        device = self._devices.pop(slot)
        try:
            self._rules.remove(slot)
        finally:
            self._unplug(slot, device)

    def _unplug(self, slot: int, device: _Device) -> None:
        self.watches.end(slot)
        self._out.forget(slot)
        self._in.forget(slot)
        device.socket.close()
        with contextlib.suppress(LaminaError):  # the programs go with the device
            if device.tags is not None:
                self._legs(slot).remove(slot)
        _remove(self._netlink, device.index)
        if slot in self._detours:
            _remove(self._netlink, self._detours.pop(slot)[0])

    def is_there(self, slot: int) -> bool:
        """Tell whether nobody took the device away."""
        try:
            links.index_of(self._netlink, f"d{slot}")
        except KernelRefusal:
            return False
        return True

    def reads(self, slot: int, tags: Tags) -> bool:
        """Tell whether tags are read in this way at a port already; if not, it has to lose its legs, then `read`."""
        return self._devices[slot].tags == tags

    def read(self, slot: int, tags: Tags) -> None:
        """Read tags at a port in this way from now on. It has no legs. Raises FailedPrecondition `BPF_REFUSED`."""
        device = self._devices[slot]
        if device.tags is not None:
            device.tags = None
            device.mismatched += self._legs(slot).refused(slot)
            self._count_vlans(slot)
            device.told = {}
            self._legs(slot).remove(slot)
        (self._trunks if tags.is_trunk else self._accesses).make(slot, device.index, tags)
        device.tags = tags
        if slot in self.watches:
            self._legs(slot).copy_refused(slot, self.watches.index_of(slot))
        if slot in self._detours:
            self._take_detour(slot)

    def add_leg(self, slot: int, vlan: int, bridge: int, mtu_bytes: int) -> Leg:
        """Let a port carry a VLAN, whose bridge has this index."""
        return self._legs(slot).add_leg(slot, vlan, bridge, mtu_bytes)

    def remove_leg(self, slot: int, vlan: int) -> None:
        """Let a port carry a VLAN no more."""
        legs = self._legs(slot)
        if legs is self._trunks:  # the device of an access port stays, and its rules with it
            legs.let_none_in(slot, vlan)
            if list(legs.legs(slot)) == [vlan]:
                self._rules.set(FilteredPort(slot, (), PolicyInForce()))
        legs.remove_leg(slot, vlan)

    def carries(self, slot: int, vlan: int) -> bool:
        """Tell whether a port is a device that has a leg in a VLAN."""
        return vlan in self._legs(slot).legs(slot)

    def apply(self, slot: int, policy: PolicyInForce, ageing_seconds: int, mtu_bytes: int) -> None:
        """Let a policy hold at a port and its legs; a device that is gone needs none.

        Raises FailedPrecondition `NFT_REFUSED`.
        """
        device = self._devices[slot]
        if not self.is_there(slot):
            self._rules.set(FilteredPort(slot, (), PolicyInForce()))
            return
        if device.mtu_bytes != mtu_bytes:
            links.set_mtu(self._netlink, device.index, mtu_bytes)
            device.mtu_bytes = mtu_bytes
        self._rules.set(self._filtered(slot, policy, ageing_seconds))
        self._out.set(slot, device.index, policy.egress_shaping, mtu_bytes)
        shaping = policy.ingress_shaping
        if shaping is not None and slot not in self._detours:
            self._take_detour(slot)
        if slot in self._detours:
            self._in.set(slot, self._detours[slot][0], shaping, mtu_bytes)
            if shaping is None:
                self._legs(slot).enter_by(slot, None)
                _remove(self._netlink, self._detours.pop(slot)[0])
        self._legs(slot).let_in(slot)

    def check(self, slot: int, policy: PolicyInForce, ageing_seconds: int) -> None:
        """Raise FailedPrecondition `NFT_REFUSED` if the kernel would not take a policy's rules; nothing changes."""
        self._rules.check(self._filtered(slot, policy, ageing_seconds))

    def _filtered(self, slot: int, policy: PolicyInForce, ageing_seconds: int) -> FilteredPort:
        devices = self._legs(slot).filtered(slot) if self.is_there(slot) else ()
        watch = self.watches.device_of(slot) if slot in self.watches else ""
        return FilteredPort(slot, devices, policy, ageing_seconds, watch)

    def _take_detour(self, slot: int) -> None:
        """Lead what comes in at a port through a pair of devices, so that it waits at the way out of the first."""
        if slot in self._detours:  # of other programs, which are gone
            _remove(self._netlink, self._detours.pop(slot)[0])
            self._in.lose(slot)
        first, second = f"i{slot}", f"i{slot}x"
        add_pair(self._netlink, first, second, LONGEST_MTU)
        pair = links.index_of(self._netlink, first), links.index_of(self._netlink, second)
        try:
            for index in pair:
                set_up(self._netlink, index, up=True)
            links.index_of(self._netlink, first)  # the kernel notices its carrier now, not a second later
            self._legs(slot).enter_by(slot, pair)
        except BaseException:
            _remove(self._netlink, pair[0])
            raise
        self._detours[slot] = pair

    def watch(self, slot: int) -> None:
        """Listen to the frames of a port, in `watches`; of those that rules see, from the next `apply` on. Idempotent.

        Raises FailedPrecondition `BPF_REFUSED`.
        """
        if slot not in self.watches and self._devices[slot].tags is not None:
            self.watches.begin(slot, f"d{slot}")
            try:
                self._legs(slot).copy_refused(slot, self.watches.index_of(slot))
            except BaseException:
                self.watches.end(slot)
                raise

    def watch_no_more(self, slot: int) -> None:
        """Listen to a port no more; its rules go back to what they were with the next `apply`."""
        self.watches.end(slot)
        with contextlib.suppress(LaminaError):  # the programs went with the device, or copy to one that is gone
            if self._devices[slot].tags is not None:
                self._legs(slot).copy_refused(slot, 0)

    def show_link(self, slot: int, *, up: bool) -> None:
        """Give the interface a carrier, or none."""
        with contextlib.suppress(KernelRefusal):  # a device that is gone shows nothing
            set_up(self._netlink, self._devices[slot].index, up=up)
            links.index_of(self._netlink, f"d{slot}")  # the kernel notices its carrier now, not a second later

    def inject(self, slot: int, frames: Sequence[bytes]) -> int:
        """Send complete frames out of a port, to its interface; return how many went."""
        for sent, frame in enumerate(frames):
            try:
                self._send(slot, frame)
            except OSError:
                return sent
        return len(frames)

    def _send(self, slot: int, frame: bytes) -> None:
        if slot in self.watches:
            self.watches.send(slot, frame)
        else:
            self._devices[slot].socket.send(frame)

    def counters(self, slot: int, shell: Counters) -> Counters:
        """Return the counters of a port: frames as its device counted them, drops here and in the kernel by reason.

        `shell` has the drops of frames that this process had in its hands. A device that went away counts no more.
        """
        device, before, drops = self._devices[slot], self._devices[slot].before, dict(shell.drops)
        told = self._rules.drops(slot)
        told[DropReason.VLAN_MISMATCH] = device.mismatched + self._legs(slot).refused(slot)
        told[DropReason.SHAPED] = self._in.drops(slot) + self._out.drops(slot)
        for reason, count in sorted(told.items()):
            if count:
                drops[reason] = drops.get(reason, 0) + count
        device.counts = counts(self._netlink, device.index) or device.counts
        received, received_bytes, sent, sent_bytes = device.counts
        return Counters(
            before.received_frames + received,
            before.received_bytes + received_bytes,
            before.sent_frames + sent,
            before.sent_bytes + sent_bytes,
            shell.flooded_frames,
            drops,
        )

    def take_vlans(self, slot: int) -> list[tuple[int, Counters]]:
        """Return what went through VLANs of a trunk since the last time; a VLAN may be there more than once."""
        self._count_vlans(slot)
        device = self._devices[slot]
        taken, device.vlans = device.vlans, []
        return taken

    def _count_vlans(self, slot: int) -> None:
        device = self._devices[slot]
        for vlan, now in self._legs(slot).counts(slot).items():
            before = device.told.get(vlan, (0, 0, 0, 0))
            if now != before:
                frames_in, bytes_in, frames_out, bytes_out = (new - old for new, old in zip(now, before, strict=True))
                device.vlans.append((vlan, Counters(frames_in, bytes_in, frames_out, bytes_out)))
                device.told[vlan] = now

    def close(self) -> None:
        """Remove all devices. Idempotent."""
        self.watches.close()
        for slot in sorted(self._devices):
            device = self._devices.pop(slot)
            device.socket.close()
            _remove(self._netlink, device.index)
        self._trunks.close()
        self._accesses.close()
        self._rules.close()

    def _legs(self, slot: int) -> TrunkLegs | AccessDevices:
        """Return where a port, whose tags are read already, has its legs: `Tags` say which of both."""
        return self._accesses if slot in self._accesses else self._trunks


def _for_user(interface: str, refusal: KernelRefusal) -> LaminaError:
    """Return what the refusal of a pair means to the user who asked for it."""
    if refusal.number == errno.EEXIST:
        return FailedPrecondition(
            f"There is an interface {interface} already.",
            reason="DEVICE_IN_USE",
            next_step="Delete it, or name another.",
        )
    if refusal.number in (errno.EPERM, errno.EACCES):
        return PermissionDenied(
            f"The machine does not let this process make the interface {interface}: CAP_NET_ADMIN is missing.",
            reason="DEVICE_FORBIDDEN",
            next_step="Run the service as a user that may, or give it the capability.",
        )
    return refusal


def _remove(netlink: Netlink, index: int) -> None:
    unless_gone(lambda: links.remove(netlink, index))


class PluggedDevice:
    """A port's device, for whoever plugged it in: a `KernelDevice`. `end` makes the port one of this process again."""

    def __init__(self, devices: DevicePorts, slot: int, end: Callable[[int], None]) -> None:
        self._devices = devices
        self._slot = slot
        self._end = end
        self._is_in = True

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames out of the port; return how many went."""
        return self._devices.inject(self._slot, frames)

    def show_link(self, up: bool) -> None:
        """Give the interface a carrier, or none."""
        self._devices.show_link(self._slot, up=up)

    def is_there(self) -> bool:
        """Return whether nobody took it away."""
        return self._is_in and self._devices.is_there(self._slot)

    def unplug(self) -> None:
        """Remove it. Idempotent."""
        if self._is_in:
            self._is_in = False
            self._end(self._slot)
