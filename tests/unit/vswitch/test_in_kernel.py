"""Which policies the kernel can keep at a port that is a device of it."""

from __future__ import annotations

import pytest

from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.domain.policy.in_kernel import beyond_kernel, check_kernel_keeps, vlans_of
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security, Shaping, StormControl
from lamina_vswitch.domain.policy.trunk import Trunk


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (PolicyInForce(), []),
        (
            PolicyInForce(
                Trunk(((10, 72),), 5),
                Security(reject_forged_transmits=True, reject_mac_changes=True, dhcp_guard=True, mac_limit=4),
                StormControl(1, 2),
                Shaping(8000, 9000),
                Shaping(8000, 9000),
                isolated=True,
            ),
            [],
        ),
        (PolicyInForce(Trunk()), ["trunk.ranges (none, or more than 64 VLANs)"]),
        (PolicyInForce(Trunk(((10, 73),), 5)), ["trunk.ranges (none, or more than 64 VLANs)"]),
        (
            PolicyInForce(None, Security(promiscuous=True, source_guard=True, mac_limit=1, shut_at_mac_limit=True)),
            ["security.promiscuous", "security.source_guard", "security.shut_at_mac_limit"],
        ),
        (PolicyInForce(None, Security(shut_at_mac_limit=True)), []),
        (
            PolicyInForce(storm_control=StormControl(1, 1, 1, 1)),
            [
                "storm_control.unknown_unicast_frames_per_second",
                "storm_control.shut_after_ns",
            ],
        ),
    ],
)
def test_fields_that_the_kernel_cannot_keep_are_named(policy: PolicyInForce, fields: list[str]) -> None:
    """Every one of them, in the contract's order, and no other; the refusal names them with its reason."""
    assert beyond_kernel(policy) == fields
    if fields:
        with pytest.raises(FailedPrecondition) as refused:
            check_kernel_keeps("p1", policy)
        assert refused.value.reason == "POLICY_NOT_IN_KERNEL"
        assert all(field in refused.value.message for field in fields)
    else:
        check_kernel_keeps("p1", policy)


def test_a_trunk_has_the_vlans_that_it_names() -> None:
    """VLAN 0 only as the native one, each VLAN once."""
    assert vlans_of(Trunk(((0, 2), (2, 4)), 9)) == {1, 2, 3, 4, 9}
