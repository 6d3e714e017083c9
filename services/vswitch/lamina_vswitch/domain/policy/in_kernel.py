"""Which parts of a policy the kernel can keep by itself, at a port that is a device of the kernel."""

from __future__ import annotations

from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.policy.trunk import Trunk

MOST_VLANS = 64
"""Most VLANs of a trunk that is a device of the kernel: each is a pair of devices."""


def vlans_of(trunk: Trunk) -> set[int]:
    """Return the VLANs of a trunk that names its ranges."""
    named = {vlan for first, last in trunk.ranges for vlan in range(first, last + 1)}
    return {vlan for vlan in named if trunk.carries(vlan)} | {trunk.native}


def beyond_kernel(policy: PolicyInForce) -> list[str]:
    """Return the fields of a policy that the kernel cannot keep, by their names in the contract, in its order."""
    security, storm, trunk = policy.security, policy.storm_control, policy.trunk
    many = trunk is not None and (not trunk.ranges or len(vlans_of(trunk)) > MOST_VLANS)
    asked = {
        f"trunk.ranges (none, or more than {MOST_VLANS} VLANs)": many,
        "security.promiscuous": security.promiscuous,
        "security.source_guard": security.source_guard,
        "security.shut_at_mac_limit": security.shut_at_mac_limit and security.mac_limit > 0,
        "storm_control.unknown_unicast_frames_per_second": storm is not None and storm.unknown_unicast > 0,
        "storm_control.shut_after_ns": storm is not None and storm.shut_after_ns > 0,
    }
    return [field for field, beyond in asked.items() if beyond]


def check_kernel_keeps(name: str, policy: PolicyInForce) -> None:
    """Raise FailedPrecondition `POLICY_NOT_IN_KERNEL` for a policy that the kernel cannot keep at a port."""
    fields = beyond_kernel(policy)
    if fields:
        raise FailedPrecondition(
            f"{name} is a device of the kernel, which cannot keep: {', '.join(fields)}.",
            reason="POLICY_NOT_IN_KERNEL",
            next_step="Clear these fields for the port, or plug a tap in instead of a veth.",
            port=name,
        )


def teams_not_in_kernel(name: str) -> FailedPrecondition:
    """Return the error for a device of the kernel as the wire of an uplink: a bridge gives frames to all of a team."""
    return FailedPrecondition(
        f"{name} is the port of an uplink, and the kernel cannot keep: teaming.",
        reason="POLICY_NOT_IN_KERNEL",
        next_step="Plug a packet or a tap backend in instead of a veth.",
        port=name,
    )
