"""Access ports that are devices of the kernel: the device is itself a port of the bridge of its VLAN.

A frame without a tag costs what it costs at any port of a bridge: nothing stands in its way but the rules of nf_tables,
where there are any. See `engines/linux/bpf/access.py` for frames with a tag, and for the gate that stands before the
bridge until the rules of the port hold, and while what comes in is shaped.

Whether frames pass the port follows the carrier of the device: the kernel makes a port of a bridge pass them again
when a carrier comes, whatever was set before. So a port that shall take no part is no port of the bridge.

Source: net/bridge/br_if.c (br_port_carrier_check), br_stp_if.c of Linux 6.18; veth(4).
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass

from lamina_vswitch.ebpf.programs import ArrayMap
from lamina_vswitch.engines.linux.bpf import classifiers
from lamina_vswitch.engines.linux.bpf.access import closed_gate, detour_gate, returner, stripper
from lamina_vswitch.engines.linux.bpf.trunk import Tags
from lamina_vswitch.engines.linux.devices.trunk import Leg
from lamina_vswitch.engines.linux.netlink import links
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.netlink.traffic_control import (
    EVERY_FRAME,
    INGRESS,
    TAGGED_BY_CUSTOMER,
    TAGGED_BY_PROVIDER,
    let_no_programs_run,
    let_programs_run,
    stop_program,
)
from lamina_vswitch.engines.linux.refusal import unless_gone


@dataclass(slots=True)
class _Access:
    """One port: its device, its VLAN, what counts refused frames; whether the bridge has it, and whether it lets in.

    `pair` is the detour, as in `enter_by`.
    """

    leg: Leg
    vlan: int
    refused: ArrayMap
    pair: tuple[int, int] | None = None
    is_joined: bool = False
    is_open: bool = False


class AccessDevices:
    """The access ports of an engine that are devices of the kernel, by slot; beside `TrunkLegs`, and called as it is.

    Raises Unavailable `KERNEL_REFUSED`.
    """

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._ports: dict[int, _Access] = {}

    def __contains__(self, slot: int) -> bool:
        return slot in self._ports

    def make(self, slot: int, index: int, tags: Tags) -> None:
        """Let the device with an index, which no bridge has, be an access port; it lets nothing in yet.

        Raises FailedPrecondition `BPF_REFUSED`, Unavailable `KERNEL_REFUSED`.
        """
        with ExitStack() as made:
            refused = made.enter_context(closing(ArrayMap(8, 1)))
            port = _Access(Leg(f"d{slot}", index), tags.native, refused)
            let_programs_run(self._netlink, index)
            made.callback(let_no_programs_run, self._netlink, index)
            self._set_gate(port, False, None)
            self._strip(port, 0)
            made.pop_all()
        self._ports[slot] = port

    def enter_by(self, slot: int, pair: tuple[int, int] | None) -> None:
        """Have frames go through a pair of devices before they come in: out at the first, in at the second.

        None: they come in straight again. The pair is new when it is given, and removed by the caller afterwards.
        """
        port = self._ports[slot]
        if pair is not None:
            let_programs_run(self._netlink, pair[1])
            classifiers.attach(self._netlink, pair[1], INGRESS, returner(port.leg.index), "lamina-returner")
        self._set_gate(port, port.is_open, pair)

    def add_leg(self, slot: int, vlan: int, bridge: int, mtu_bytes: int) -> Leg:
        """Make the device a port of the bridge of its VLAN, which has this index; return the device as its leg.

        Frames leave by it at once; they come in when it is `let_in`.
        """
        port = self._ports[slot]
        if not port.is_joined:
            self.let_none_in(slot, vlan)
            links.set_mtu(self._netlink, port.leg.index, mtu_bytes)
            links.join(self._netlink, port.leg.index, bridge)
            port.is_joined = True
            links.index_of(self._netlink, port.leg.device)  # the kernel notices its carrier now, not a second later
        return port.leg

    def let_in(self, slot: int) -> None:
        """Let frames come in, now that the rules of the port hold."""
        port = self._ports[slot]
        if port.is_joined and not port.is_open:
            self._set_gate(port, True, port.pair)

    def let_none_in(self, slot: int, vlan: int) -> None:
        """Let no frame come in any more. A device that is gone lets none in."""
        port = self._ports[slot]
        if port.is_open:
            unless_gone(lambda: self._set_gate(port, False, port.pair))
            port.is_open = False

    def remove_leg(self, slot: int, vlan: int) -> None:
        """Let the bridge have the device no more, whatever becomes of the gate. Idempotent."""
        port = self._ports[slot]
        if port.is_joined:
            unless_gone(lambda: links.join(self._netlink, port.leg.index, 0))
            port.is_joined = False
        self.let_none_in(slot, vlan)

    def remove(self, slot: int) -> None:
        """Let a device be no access port any more. One that is gone raises `KERNEL_REFUSED`, after all else."""
        port = self._ports[slot]
        self.remove_leg(slot, port.vlan)
        del self._ports[slot]
        port.refused.close()
        let_no_programs_run(self._netlink, port.leg.index)

    def legs(self, slot: int) -> dict[int, Leg]:
        """Return the device by its VLAN, as the leg of the port; nothing while no bridge has it."""
        port = self._ports[slot]
        return {port.vlan: port.leg} if port.is_joined else {}

    def filtered(self, slot: int) -> tuple[str, ...]:
        """Return the devices at which the rules of the port are."""
        return (self._ports[slot].leg.device,)

    def refused(self, slot: int) -> int:
        """Return how many frames came in that were in no VLAN of the port."""
        return self._ports[slot].refused[0]

    def counts(self, slot: int) -> dict[int, tuple[int, int, int, int]]:
        """Return nothing: the device counts for its VLAN."""
        return {}

    def copy_refused(self, slot: int, watch: int) -> None:
        """Have copies of frames in no VLAN of the port go to the device with an index; 0: no more."""
        self._strip(self._ports[slot], watch)

    def close(self) -> None:
        """Let go of the maps; the devices go with the namespace."""
        for port in self._ports.values():
            port.refused.close()
        self._ports.clear()

    def _strip(self, port: _Access, watch: int) -> None:
        program = stripper(port.vlan, port.refused.descriptor, watch)
        frames = TAGGED_BY_CUSTOMER, TAGGED_BY_PROVIDER
        classifiers.attach(self._netlink, port.leg.index, INGRESS, program, "lamina-stripper", *frames)

    def _set_gate(self, port: _Access, is_open: bool, pair: tuple[int, int] | None) -> None:
        """Open or close the gate, and lead what it lets in by a detour or not; noted once the kernel does so."""
        if is_open and pair is None:
            stop_program(self._netlink, port.leg.index, INGRESS, EVERY_FRAME)
        else:
            program = detour_gate(pair[0]) if is_open and pair is not None else closed_gate()
            classifiers.attach(self._netlink, port.leg.index, INGRESS, program, "lamina-gate")
        port.is_open, port.pair = is_open, pair
