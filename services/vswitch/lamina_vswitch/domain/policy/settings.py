"""What policies say: security, storm control, shaping, loop detection; of a group, of a port, and both together.

Everything here is immutable; a change makes a new one. Ranges and defaults are those of the contract.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_vswitch.domain.policy.trunk import Trunk

MS = 1_000_000
NS_PER_SECOND = 1_000_000_000

STORM_RATE = (0, 10_000_000)
PORT_MAC_LIMIT = (0, 1 << 20)
SHAPING_RATE = (8_000, 10**12)
BURST_BYTES = (9_018, 1 << 31)
PROBE_INTERVAL_NS = (100 * MS, 3600 * NS_PER_SECOND)
MAX_NS = (1 << 63) - 1

DEFAULT_PROBE_INTERVAL_NS = NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Security:
    """What a device may do. The defaults restrict nothing. `mac_limit` 0 is no limit but the table's."""

    promiscuous: bool = False
    reject_forged_transmits: bool = False
    reject_mac_changes: bool = False
    dhcp_guard: bool = False
    router_guard: bool = False
    source_guard: bool = False
    mac_limit: int = 0
    shut_at_mac_limit: bool = False


@dataclass(frozen=True, slots=True)
class StormControl:
    """Frames a second that may go to everybody, by class; 0 is unlimited. `shut_after_ns` 0 never shuts."""

    broadcast: int = 0
    multicast: int = 0
    unknown_unicast: int = 0
    shut_after_ns: int = 0


@dataclass(frozen=True, slots=True)
class Shaping:
    """Average and peak rate in bits a second (peak 0: none), size of the bucket in bytes (0: by the average)."""

    average: int
    peak: int = 0
    burst: int = 0

    @property
    def bucket_bytes(self) -> int:
        """Size of the bucket: what was asked for, or what the average brings in 100 ms, at least one frame's size."""
        return self.burst or max(self.average // 80, BURST_BYTES[0])


@dataclass(frozen=True, slots=True)
class LoopDetection:
    """Nanoseconds between probes, and until a shut port is opened again (0: never)."""

    probe_interval_ns: int = DEFAULT_PROBE_INTERVAL_NS
    reopen_after_ns: int = 0


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """What holds for the ports of a group. A part that is None has every default of its fields, or is off."""

    trunk: Trunk | None = None
    security: Security | None = None
    storm_control: StormControl | None = None
    ingress_shaping: Shaping | None = None
    egress_shaping: Shaping | None = None
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class PortPolicy:
    """What a port's own policy sets. A part that is None is its group's; an empty address was not given."""

    mac: bytes = b""
    security: Security | None = None
    storm_control: StormControl | None = None
    ingress_shaping: Shaping | None = None
    egress_shaping: Shaping | None = None


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """What holds for a port in the end: every part decided; shaping and storm control None where there is none."""

    trunk: Trunk | None = None
    security: Security = Security()
    storm_control: StormControl | None = None
    ingress_shaping: Shaping | None = None
    egress_shaping: Shaping | None = None
    isolated: bool = False
    mac: bytes = b""

    @property
    def plain(self) -> bool:
        """Whether nothing here asks anybody to look at a frame."""
        return self == PolicyInForce(mac=self.mac)


def in_force(group: GroupPolicy, port: PortPolicy) -> PolicyInForce:
    """Return what holds for a port: its own parts before those of its group."""
    return PolicyInForce(
        group.trunk,
        port.security or group.security or Security(),
        port.storm_control or group.storm_control,
        port.ingress_shaping or group.ingress_shaping,
        port.egress_shaping or group.egress_shaping,
        group.isolated,
        port.mac,
    )
