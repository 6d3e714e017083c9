"""What an engine of the vswitch layer is, and what the layer asks of the world outside.

Vocabulary. A *switch* is one learning bridge, named by its resource name. A *port* is one socket of a switch; its
*slot* is its number in the host's port table, from 1, small and reused. A *sink* is where an engine puts the frames for
whoever is attached to a port. The *fdb* (forwarding database) is the MAC table. A *frame* is a complete Ethernet frame
without preamble and frame check sequence, as immutable bytes. Times are nanoseconds since the stack's start, given by
the caller; they never go back.

Capabilities that an engine may name (the contract suite asks for them before it tests them):

- `access-vlan`   ports belong to one VLAN, and VLANs are separate
- `devices`       ports can be devices of the kernel; the engine is a `DeviceEngine`
- `given-time`    addresses age by the times that callers give, not by a clock of the kernel
- `kernel-nat`    networks can have the kernel as their outside; the engine is a `TranslatingEngine`
- `hold-frames`   ports keep back what is for them, while a device moves
- `learning`      addresses are learned per VLAN, age and move
- `offloads`      frames with offload headers pass, and are finished where a device does not take them
- `steady-uplinks` a station behind uplinks keeps the one where it was seen first
- `static-mac`    entries that users make, which learning does not move
- `trace-frame`   `trace` tells what would happen to a frame
- `teaming`       several ways out of the host, of which one frame takes one
- `policies`      trunks, security, storm control, shaping, isolation and loop detection
- `watching`      an observer, copies for mirrors, records of frames, counters of VLANs

Preconditions. Slots and switch names that are passed to an engine exist in it, but for `add_*`, where they do not; the
catalog sees to that. Values lie within the ranges of `domain/definitions/switches.py`. Frames may be any bytes at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from lamina_kit.rng import Rng
from lamina_vswitch.domain.capture.observer import Observer
from lamina_vswitch.domain.capture.records import FrameRecord
from lamina_vswitch.domain.definitions.switches import (
    Origin,
    PortDefinition,
    PortGroupDefinition,
    StaticEntry,
    SwitchDefinition,
)
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.domain.policy.settings import LoopDetection, PolicyInForce
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.domain.port.hold import Hold
from lamina_vswitch.domain.port.loss import Loss
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.switch.topology import LeaseBook, Shut
from lamina_vswitch.domain.switch.trace import Trace
from lamina_vswitch.domain.uplink.teaming import Team


class FrameSink(Protocol):
    """Whoever is attached to a port. Its methods return at once and never call the engine."""

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take frames in order; return how many were taken. The rest, at the tail, is lost.

        A sink with several queues brings the list that it gets into another order for that: lost frames at the tail.
        """

    def link_changed(self, up: bool) -> None:
        """Learn that the link was switched."""

    def removed(self) -> None:
        """Learn that the port is gone; nothing is delivered any more."""


@runtime_checkable
class QueueingSink(FrameSink, Protocol):
    """A sink whose frames wait for the device, and can be had back."""

    def withdraw(self) -> list[bytes]:
        """Return what has not gone to the device yet, oldest first, and forget it."""


@dataclass(frozen=True, slots=True)
class MacEntryView:
    """One live entry: VLAN, six bytes of address, port slot, whether static, age in nanoseconds (0 if static)."""

    vlan: int
    mac: bytes
    slot: int
    static: bool
    age_ns: int


@dataclass(frozen=True, slots=True)
class SwitchTally:
    """Live entries now; moves, and frames from addresses that found the table full, since the switch was added."""

    mac_entries: int
    mac_moves: int
    mac_refusals: int


class SwitchEngine(Protocol):
    """The data plane of a host's switches."""

    name: ClassVar[str]
    capabilities: ClassVar[tuple[str, ...]]
    observer: Observer | None
    """Hears of every frame; None, as at the start, when nobody watches. Needs `watching`.

    It is set again whenever what it wants may be something else.
    """
    port_changed: Callable[[int], None]
    """Called with the slot of a port whose link, carrier or VLAN changed; at the start with nobody behind it."""

    timer: Callable[[int | None], None]
    """Told when `advance` is wanted next, None for never; at the start nobody is told. Needs `policies`."""

    @classmethod
    def missing(cls) -> list[str]:
        """Return why the engine cannot run here; empty when it can."""

    def __init__(self, notice: Callable[[Notice], None]) -> None:
        """`notice` is called with what belongs into the event log; it returns at once and never calls the engine."""

    def close(self) -> None:
        """End what the engine has outside of this process. Idempotent; nothing else is called afterwards."""

    def descriptor(self) -> int | None:
        """Return what becomes readable when `listen_outside` has something to do; None for an engine that never has."""

    def listen_outside(self, now_ns: int) -> None:
        """Take in what came from outside of this process since: frames for ports, what was learned or forgotten."""

    def add_switch(self, name: str, switch: SwitchDefinition) -> None:
        """Make a switch without ports."""

    def remove_switch(self, name: str) -> None:
        """Remove a switch that has no ports."""

    def add_port(self, switch: str, slot: int, name: str, vlan: int, link_up: bool) -> None:
        """Make a port, detached."""

    def remove_port(self, slot: int, now_ns: int) -> None:
        """Remove a port and all MAC entries that name it; its sink learns of it."""

    def set_link(self, slot: int, up: bool, now_ns: int) -> None:
        """Switch the link; the sink learns of a change, and a port that goes down loses its dynamic entries."""

    def break_link(self, slot: int, broken: bool, now_ns: int) -> None:
        """Break a port's cable or mend it: as `set_link`, beside what the owner wants."""

    def set_loss(self, slot: int, loss: Loss | None) -> None:
        """Let a share of the frames get lost that enter or leave at a port; None: no more."""

    def link(self, slot: int) -> bool:
        """Return whether the device behind a port sees a link."""

    def set_copies_only(self, slot: int, copies_only: bool, now_ns: int) -> None:
        """Let a port take part in nothing but receiving copies of a mirror, or in everything again.

        What enters at such a port is dropped as `MIRROR_PORT`; its dynamic entries are forgotten.
        """

    def copy(self, slot: int, frames: Sequence[bytes], now_ns: int) -> int:
        """Send copies of a mirror out of a port; return how many: none when it is not up. Needs `watching`."""

    def records(self, switch: str) -> list[FrameRecord]:
        """Return what is recorded of the frames of a switch, newest first. Needs `watching`."""

    def vlan_counters(self, switch: str) -> list[tuple[int, Counters]]:
        """Return the counters of every VLAN of a switch that has or had ports, ordered by number. Needs `watching`."""

    def set_uplink(self, slot: int, uplink: bool, now_ns: int) -> None:
        """Let a port lead out of the host, or no more. Needs `teaming`."""

    def set_teams(self, name: str, teams: dict[str, Team], now_ns: int) -> None:
        """Share the uplinks of a switch in this way; the team with an empty key is that of ports which join none.

        Needs `teaming`.
        """

    def join_team(self, slot: int, key: str) -> None:
        """Let a port use the uplinks of a team; a key that names none is the default team's. Needs `teaming`."""

    def used_uplinks(self, name: str, key: str) -> tuple[int, ...]:
        """Return the slots of the uplinks that a team uses now, in order of preference. Needs `teaming`."""

    def set_vlan(self, slot: int, vlan: int, now_ns: int) -> None:
        """Move a port to another access VLAN; it loses its dynamic entries if that is a change."""

    def update_switch(self, name: str, switch: SwitchDefinition, now_ns: int) -> None:
        """Give a switch another MTU, ageing time or table limit; entries above the limit go, the longest unseen first.

        Raises FailedPrecondition `MAC_TABLE_FULL` when more static entries are there than the new limit.
        """

    def set_policy(self, slot: int, vlan: int, policy: PolicyInForce, now_ns: int) -> None:
        """Let a policy hold for a port from the next frame on, with its access VLAN or the native one of its trunk.

        Dynamic entries of VLANs that the port left are forgotten. Needs `policies`.
        """

    def set_loop_detection(self, name: str, detection: LoopDetection | None, rng: Rng, now_ns: int) -> None:
        """Watch a switch for loops from now on, with probes drawn from `rng`; None: no more. Needs `policies`."""

    def set_lease_book(self, book: LeaseBook) -> None:
        """Ask this book for source guards which port was given which address. Needs `policies`."""

    def shut(self, slot: int) -> Shut | None:
        """Return why a port is shut; None when it is not."""

    def reopen(self, slot: int, now_ns: int) -> Shut | None:
        """Open a shut port again; return why it was shut, None when it was not. Needs `policies`."""

    def advance(self, now_ns: int) -> None:
        """Do what is due by now, in the order of its times; see `timer`. Needs `policies`."""

    def attach(self, slot: int, sink: FrameSink, now_ns: int, takes: Takes | None = None) -> None:
        """Give the port a carrier. Raises FailedPrecondition `PORT_ATTACHED` when another sink holds it.

        `takes` is what the device takes unfinished; None: it neither takes nor sends anything but complete frames.
        """

    def detach(self, slot: int, sink: FrameSink, now_ns: int) -> bool:
        """Take the carrier away; the port's dynamic entries are forgotten. False: `sink` was not attached here."""

    def transmit(self, slot: int, frames: Sequence[bytes], now_ns: int) -> int:
        """Switch frames that the device behind a port sent; return how many were dropped at this port. Never raises."""

    def turned_away(self, slot: int, reason: DropReason, frames: Sequence[bytes], now_ns: int) -> None:
        """Count frames of the device behind a port that its transport found bad, as received and as dropped."""

    def listen(self, slot: int, listening: ReceiveFilter) -> None:
        """Note what the device at a port listens to, until it is detached."""

    def quiesce(self, slot: int, hold_frames: int, now_ns: int) -> int:
        """Hold what is for the device of a port, at most so many frames; return how many had been in its queue.

        The port is up while it is held, attached or not. Raises ResourceExhausted `HOLD_MEMORY_FULL`.
        """

    def hold(self, slot: int) -> Hold | None:
        """Return the hold of a port; None when it is not held."""

    def give(self, slot: int, frames: Sequence[bytes], now_ns: int, withdrawn: int = 0) -> tuple[int, int]:
        """Deliver frames to an attached device past a hold; return how many they became, and how many it took.

        The first `withdrawn` frames had been in its queue before, and are not counted as sent again.
        """

    def release(self, slot: int, now_ns: int) -> int:
        """End a hold; what it still holds is dropped as DISCARDED. Return how many frames that were."""

    def refused(self, slot: int, reason: DropReason, frames: Sequence[bytes], now_ns: int) -> None:
        """Count and report frames, at least one, that whoever is behind a port could not use: a router, a ring."""

    def trace(self, slot: int, frame: bytes, now_ns: int) -> Trace:
        """Return what would happen to a frame, and change nothing. Needs `trace-frame`."""

    def counters(self, slot: int) -> Counters:
        """Return a copy of the counters of a port."""

    def attached(self, slot: int) -> bool:
        """Return whether a sink is attached."""

    def tally(self, switch: str, now_ns: int) -> SwitchTally:
        """Return the numbers of a switch."""

    def mac_entries(self, switch: str, now_ns: int) -> list[MacEntryView]:
        """Return the live entries, ordered by VLAN, then by address."""

    def mac_entry(self, switch: str, vlan: int, mac: bytes, now_ns: int) -> MacEntryView | None:
        """Return one live entry, or None."""

    def add_static(self, switch: str, vlan: int, mac: bytes, slot: int, now_ns: int) -> None:
        """Make a static entry. Raises ResourceExhausted `MAC_TABLE_FULL`. Needs `static-mac`."""

    def remove_mac(self, switch: str, vlan: int, mac: bytes, now_ns: int) -> bool:
        """Forget a live entry of either kind; return whether there was one."""

    def flush(self, switch: str, vlan: int | None, slot: int | None, now_ns: int) -> int:
        """Forget live dynamic entries of a VLAN, a port, both, or all; return how many."""


class KernelDevice(Protocol):
    """The device of the kernel that a port is. None of its methods call the engine but `unplug`."""

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames out of the port; return how many went."""

    def show_link(self, up: bool) -> None:
        """Give the interface on the machine a carrier, or none."""

    def is_there(self) -> bool:
        """Return whether nobody took it away."""

    def unplug(self) -> None:
        """Remove it; the port is one of this process again. Idempotent."""


@runtime_checkable
class DeviceEngine(Protocol):
    """An engine with the capability `devices`."""

    def plug_device(self, slot: int, interface: str, *, up: bool) -> KernelDevice:
        """Make a port a device of the kernel, with an interface on the machine at its other end.

        Raises FailedPrecondition `POLICY_NOT_IN_KERNEL`, `DEVICE_IN_USE`, `NFT_REFUSED`, `BPF_REFUSED`,
        PermissionDenied `DEVICE_FORBIDDEN`, Unavailable `KERNEL_REFUSED`.
        """

    def check_policy(self, slot: int, policy: PolicyInForce) -> None:
        """Raise FailedPrecondition `POLICY_NOT_IN_KERNEL`, `NFT_REFUSED` if a port's device could not keep a policy."""


@runtime_checkable
class TranslatingEngine(Protocol):
    """An engine with the capability `kernel-nat`."""

    drops_elsewhere: dict[int, Callable[[], Mapping[DropReason, int]]]
    """Asked for what else was dropped for a port, by slots; it is counted with its drops."""

    def end_elsewhere(self, slot: int) -> None:
        """Count once and for all what else was dropped for a port, and ask no more. Idempotent."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Everything that a store holds, each list in the order in which it was made."""

    switches: list[tuple[SwitchDefinition, Origin]]
    port_groups: list[tuple[PortGroupDefinition, Origin]]
    ports: list[tuple[PortDefinition, Origin]]
    static_entries: list[StaticEntry]


class DefinitionStore(Protocol):
    """Keeps definitions through `kill -9`. Every method is one transaction.

    Raises Unavailable `STORE_UNAVAILABLE` when the disk refuses, DataLoss `STORE_CORRUPT` when what it holds is broken.
    """

    def load(self) -> Recorded:
        """Return everything."""

    def next_epoch(self) -> int:
        """Count this start of the service and return the number, from 1."""

    def save_epoch(self, epoch: int) -> None:
        """Record that a number is in use towards the hardware; the next start counts from there."""

    def add_switch(self, switch: SwitchDefinition, origin: Origin) -> None:
        """Record a switch."""

    def remove_switch(self, switch: str) -> None:
        """Forget a switch with everything in it."""

    def add_port_group(self, group: PortGroupDefinition, origin: Origin) -> None:
        """Record a port group."""

    def remove_port_group(self, group: PortGroupDefinition) -> None:
        """Forget a port group."""

    def claim_slot(self) -> tuple[int, int]:
        """Return the lowest free slot and its next generation, both from 1. `add_port` takes it."""

    def add_port(self, port: PortDefinition, origin: Origin) -> None:
        """Record a port and take its slot."""

    def update_port(self, port: PortDefinition) -> None:
        """Record a port's new group and link."""

    def remove_port(self, port: PortDefinition) -> None:
        """Forget a port and the static entries that name it; its slot becomes free."""

    def put_static_entry(self, entry: StaticEntry) -> None:
        """Record a static entry."""

    def remove_static_entry(self, switch: str, vlan: int, mac: bytes) -> None:
        """Forget a static entry if there is one."""

    def close(self) -> None:
        """Close the database."""
