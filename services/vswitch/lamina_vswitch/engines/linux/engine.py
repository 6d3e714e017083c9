"""The `linux` engine: switches that the kernel of this machine is, as bridges and TAPs in a namespace of their own.

What stands around a switch is that of the `model` engine: who is attached, holds, policies on the way in and out,
captures, records, counters. In its middle the kernel decides who gets a frame, and learns, ages and moves addresses
(docs/adr/0046-linux-switching.md).
"""

from __future__ import annotations

import errno
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.ingress import admitted
from lamina_vswitch.domain.policy.in_kernel import check_kernel_keeps, teams_not_in_kernel
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.switch.admission import Tag
from lamina_vswitch.domain.switch.fdb import Fdb
from lamina_vswitch.domain.switch.forwarding import Forwarding
from lamina_vswitch.domain.switch.tagging import form_at, in_form
from lamina_vswitch.engines.interface import MacEntryView, SwitchTally
from lamina_vswitch.engines.linux.bridge.bridges import Bridges
from lamina_vswitch.engines.linux.bridge.crossing import Crossing, leaves_at
from lamina_vswitch.engines.linux.bridge.kernel import Kernel
from lamina_vswitch.engines.linux.bridge.taps import Tap
from lamina_vswitch.engines.linux.devices.ports import PluggedDevice
from lamina_vswitch.engines.linux.devices.seen_frames import tell_seen
from lamina_vswitch.engines.linux.netlink import links
from lamina_vswitch.engines.linux.refusal import KernelRefusal
from lamina_vswitch.engines.model.engine import ModelEngine

_SEEN_AT_ONCE = 64
"""Frames of one socket that are told in a turn of the loop; the kernel may switch more than can be told."""


class LinuxEngine(ModelEngine):
    """Switches of the kernel. One writer, as the `model` engine has."""

    name: ClassVar[str] = "linux"
    capabilities: ClassVar[tuple[str, ...]] = (
        *("access-vlan", "devices", "hold-frames", "kernel-nat", "learning", "offloads", "policies", "static-mac"),
        *("teaming", "trace-frame", "watching"),
    )

    @classmethod
    def missing(cls) -> list[str]:
        """Return why the kernel does not let it run here: it needs bridges, TAPs, and the right to make a namespace."""
        if sys.platform != "linux":
            return [f"it needs Linux, and this is {sys.platform}"]
        if not Path("/dev/net/tun").exists():
            return ["there is no /dev/net/tun (CONFIG_TUN)"]
        try:
            return _tried()
        except KernelRefusal as refusal:
            if refusal.number in (errno.EPERM, errno.EACCES):
                return ["it needs CAP_SYS_ADMIN for a network namespace and CAP_NET_ADMIN for bridges and TAPs"]
            return [refusal.message.rstrip(".")]

    def __init__(self, notice: Callable[[Notice], None]) -> None:
        super().__init__(notice)
        self.kernel = Kernel()
        self.drops_elsewhere: dict[int, Callable[[], Mapping[DropReason, int]]] = {}
        self._bridges: dict[str, Bridges] = {}
        self._made = 0
        self._outside = select.epoll()
        for file in (self.kernel.descriptor, self.kernel.devices.watches.descriptor):
            self._outside.register(file, select.EPOLLIN)

    def close(self) -> None:
        """End all devices, and the namespace with them. Streams that end later find switches without a kernel."""
        for name in self._bridges:
            switch = self._switches[name]
            switch.fdb, switch.decider = Fdb(switch.fdb.ageing_ns, switch.fdb.limit), None
        self._bridges.clear()
        self._outside.close()
        self.kernel.close()

    def descriptor(self) -> int | None:
        """Return what becomes readable when the kernel has something to tell or to deliver."""
        return self._outside.fileno()

    def listen_outside(self, now_ns: int) -> None:
        """Take in what the kernel learned and forgot, and hand on frames that it made itself."""
        if not self.kernel.is_closed:
            self.kernel.listen(now_ns)
            self._tell_seen(now_ns)
            self._hand_on(now_ns)

    def bridges_of(self, switch: str) -> Bridges:
        """Return the bridges of a switch."""
        return self._bridges[switch]

    def add_switch(self, name: str, switch: SwitchDefinition) -> None:
        """Make a switch without ports: it gets bridges with them."""
        super().add_switch(name, switch)
        self._made += 1
        bridges = self._bridges[name] = Bridges(self.kernel, self._made, self._switches[name])
        self._switches[name].fdb = bridges.fdb
        self._switches[name].decider = Crossing(self.kernel, bridges)

    def remove_switch(self, name: str) -> None:
        """Remove a switch that has no ports."""
        super().remove_switch(name)
        bridges = self._bridges.pop(name, None)
        if bridges is not None:
            bridges.close()

    def add_port(self, switch: str, slot: int, name: str, vlan: int, link_up: bool) -> None:
        """Make a port, detached. Raises Unavailable `KERNEL_REFUSED`."""
        super().add_port(switch, slot, name, vlan, link_up)
        try:
            self._bridges[switch].settle_port(slot)
        except KernelRefusal:
            super().remove_port(slot, 0)
            raise

    def remove_port(self, slot: int, now_ns: int) -> None:
        """Remove a port with its devices and all MAC entries that name it; its sink learns of it."""
        bridges = self._bridges.get(self._switch_of[slot].name)
        if slot in self.kernel.devices.watches:
            self._tell_seen(now_ns)  # what it had last is not forgotten with it
        self._count_vlans(slot)
        super().remove_port(slot, now_ns)
        if bridges is not None:
            self._settle(lambda: bridges.settle_port(slot))

    def update_switch(self, name: str, switch: SwitchDefinition, now_ns: int) -> None:
        """Give a switch another MTU, ageing time or table limit. Raises FailedPrecondition `MAC_TABLE_FULL`."""
        self._look(name, now_ns)
        super().update_switch(name, switch, now_ns)
        self._settle(self._bridges[name].settle)

    def transmit(self, slot: int, frames: Sequence[bytes], now_ns: int) -> int:
        """Have the kernel switch a batch, frame by frame; return how many were dropped on the way in."""
        self.listen_outside(now_ns)
        dropped = super().transmit(slot, frames, now_ns)
        self._hand_on(now_ns)
        return dropped

    def conclude(self, slot: int, result: Forwarding, now_ns: int) -> None:
        """Deliver and report what became of frames; ports that are devices got theirs from the kernel."""
        for target in [target for target in result.deliveries if target in self.kernel.devices]:
            del result.deliveries[target]
        super().conclude(slot, result, now_ns)

    def direct(self, slot: int, *, tags: bool = False) -> bool:
        """Return False: no frame passes by the kernel."""
        return False

    def tally(self, switch: str, now_ns: int) -> SwitchTally:
        """Return the numbers of a switch."""
        self.kernel.listen(now_ns)
        return super().tally(switch, now_ns)

    def mac_entries(self, switch: str, now_ns: int) -> list[MacEntryView]:
        """Return the entries that the kernel has now, ordered by VLAN, then by address."""
        self._look(switch, now_ns)
        return super().mac_entries(switch, now_ns)

    def mac_entry(self, switch: str, vlan: int, mac: bytes, now_ns: int) -> MacEntryView | None:
        """Return one entry, or None."""
        self._look(switch, now_ns)
        return super().mac_entry(switch, vlan, mac, now_ns)

    def flush(self, switch: str, vlan: int | None, slot: int | None, now_ns: int) -> int:
        """Forget dynamic entries of a VLAN, a port, both, or all; return how many."""
        self._look(switch, now_ns)
        flushed = super().flush(switch, vlan, slot, now_ns)
        self._settle(self._bridges[switch].limit)
        return flushed

    def add_static(self, switch: str, vlan: int, mac: bytes, slot: int, now_ns: int) -> None:
        """Make a static entry. Raises ResourceExhausted `MAC_TABLE_FULL`."""
        self.kernel.listen(now_ns)
        super().add_static(switch, vlan, mac, slot, now_ns)
        self._settle(self._bridges[switch].settle)

    def remove_mac(self, switch: str, vlan: int, mac: bytes, now_ns: int) -> bool:
        """Forget an entry of either kind; return whether there was one."""
        self.kernel.listen(now_ns)
        removed = super().remove_mac(switch, vlan, mac, now_ns)
        self._settle(self._bridges[switch].settle)
        return removed

    def _look(self, switch: str, now_ns: int) -> None:
        self.kernel.listen(now_ns)
        self._bridges[switch].look(now_ns)

    def _changed(self, slot: int) -> None:
        """Bring the kernel to what a port is now, before anybody is told."""
        switch = self._switch_of.get(slot)
        bridges = self._bridges.get(switch.name) if switch is not None else None
        if bridges is not None:
            self._settle(lambda: bridges.settle_port(slot))
            self._watch(slot)
        super()._changed(slot)

    def _settle(self, settle: Callable[[], None]) -> None:
        """Bring the kernel to what a switch is; when it refuses, it is asked again with the next frame, and told of."""
        try:
            settle()
        except LaminaError as refusal:
            self._notice(Notice("engine", "kernel.refused", "kernel.refused", (("why", refusal.message),)))

    def _hand_on(self, now_ns: int) -> None:
        """Deliver what came out of bridges and was not sent in at a port: the kernel made it, or changed it."""
        strays, self.kernel.strays = self.kernel.strays, []
        for stray in strays:
            switch = self._switch_of.get(stray.slot)
            slot = leaves_at(switch, stray, now_ns) if switch is not None else 0
            if switch is not None and slot and switch.ports[slot].takes_part:
                port, vlan = switch.ports[slot], stray.vlan
                good, bad = admitted([stray.frame], switch.mtu_bytes)  # a device of the kernel may say anything
                if good:
                    self.deliver(port, [in_form(good[0], form_at(port, vlan, Tag.NONE, None), vlan)], now_ns)
                else:
                    self.drop(port, DropReason.OFFLOAD_INVALID, bad, now_ns)

    # Ports that are devices of the kernel

    def plug_device(self, slot: int, interface: str, *, up: bool) -> PluggedDevice:
        """Make a port a device of the kernel, with the errors that `DeviceEngine` names."""
        port, switch = self._port(slot), self._switch_of[slot]
        check_kernel_keeps(port.name, port.policy)
        if slot in switch.teams.uplinks:
            raise teams_not_in_kernel(port.name)
        bridges = self._bridges[switch.name]
        bridges.lose_legs(slot)
        try:
            self.kernel.devices.plug(slot, interface, switch.mtu_bytes, super().counters(slot), up=up)
            bridges.settle_port(slot)
            self._watch(slot)
        except BaseException:
            self._unplug_device(slot)
            raise
        return PluggedDevice(self.kernel.devices, slot, self._unplug_device)

    def check_policy(self, slot: int, policy: PolicyInForce) -> None:
        """Raise the errors that `DeviceEngine` names, if a port is a device that could not keep a policy."""
        if slot in self.kernel.devices:
            check_kernel_keeps(self._port(slot).name, policy)
            self._bridges[self._switch_of[slot].name].check(slot, policy)

    def set_policy(self, slot: int, vlan: int, policy: PolicyInForce, now_ns: int) -> None:
        """Let a policy hold for a port, in the kernel where the port is a device of it."""
        super().set_policy(slot, vlan, policy, now_ns)
        if slot in self.kernel.devices:
            self._bridges[self._switch_of[slot].name].apply(slot)
            self._watch(slot)

    def counters(self, slot: int) -> Counters:
        """Return a copy of the counters of a port; those of a device are the kernel's."""
        counters = super().counters(slot)
        if slot in self.drops_elsewhere:
            for reason, count in self.drops_elsewhere[slot]().items():
                counters.dropped(reason, count)
        return self.kernel.devices.counters(slot, counters) if slot in self.kernel.devices else counters

    def _attended(self) -> None:
        """Listen to the devices that somebody wants to hear of, and to no others."""
        for slot in sorted(self._switch_of):
            self._watch(slot)

    def _watch(self, slot: int) -> None:
        """Listen to a port if it is a device that somebody wants to hear of, else no more."""
        devices, observer = self.kernel.devices, self.observer
        if slot not in devices:
            return
        wanted = observer is not None and observer.wants(self._port(slot))
        if wanted == (slot in devices.watches):
            return
        bridges = self._bridges[self._switch_of[slot].name]
        if wanted:
            self._settle(lambda: devices.watch(slot))
            self._settle(lambda: bridges.apply(slot))
        else:
            devices.watch_no_more(slot)
            self._settle(lambda: bridges.apply(slot))

    def _tell_seen(self, now_ns: int) -> None:
        """Tell of frames that only the kernel had."""
        seen, missed = self.kernel.devices.watches.seen(_SEEN_AT_ONCE)
        for each in seen:
            switch = self._switch_of.get(each.slot)
            if switch is not None:
                tell_seen(self._watching, switch, switch.ports[each.slot], each, now_ns)
        observer = self.observer
        for slot, direction, count in missed:
            if observer is not None and slot in self._switch_of:
                observer.missed(self._port(slot), direction, count, now_ns)

    def vlan_counters(self, switch: str) -> list[tuple[int, Counters]]:
        """Return the counters of every VLAN of a switch that has or had ports, ordered by number."""
        made = self._switches[switch]
        for slot in sorted(made.ports):
            self._count_vlans(slot)
        return self._watching.vlan_counters(made, self.counters)

    def _count_vlans(self, slot: int) -> None:
        """Note what the kernel has counted for the VLANs of a trunk, if it did."""
        switch = self._switch_of.get(slot)
        if switch is not None and slot in self.kernel.devices:
            for vlan, counted in self.kernel.devices.take_vlans(slot):
                self._watching.of_trunks(switch).add(vlan, counted)

    def end_elsewhere(self, slot: int) -> None:
        """Count once and for all what else was dropped for a port, and ask no more. Idempotent."""
        told = self.drops_elsewhere.pop(slot, None)
        if told is not None and slot in self._switch_of:
            for reason, count in told().items():
                self._port(slot).counters.dropped(reason, count)

    def _unplug_device(self, slot: int) -> None:
        """Make a port one of this process again, or take away what is left of one that was removed."""
        switch = self._switch_of.get(slot)
        bridges = self._bridges.get(switch.name) if switch is not None else None
        if bridges is not None:
            self._settle(lambda: bridges.lose_legs(slot))
        if slot in self.kernel.devices:
            if switch is not None:
                self._count_vlans(slot)
                switch.ports[slot].counters = self.counters(slot)
            self._settle(lambda: self.kernel.devices.unplug(slot))
        if bridges is not None:
            self._settle(lambda: bridges.settle_port(slot))


def _tried() -> list[str]:
    """Return what the kernel lacks, having made one of each device. Raises Unavailable `KERNEL_REFUSED`."""
    kernel = Kernel()
    try:
        bridge = kernel.add_bridge("probe", 1)
        tap = Tap(kernel.namespace, "tap")
        try:
            links.enslave(kernel.netlink, links.index_of(kernel.netlink, "tap"), bridge, 1500)
        finally:
            tap.close()
        if not links.limits_learning(kernel.netlink, bridge):
            return ["its bridges cannot limit how many addresses they learn (fdb_max_learned, Linux 6.7)"]
        return []
    finally:
        kernel.close()
