"""Engines with trunks, isolated and promiscuous ports against the naive switch, beside all that it met before."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from tests.property.vswitch import oracle
from tests.property.vswitch import test_switch_oracle as switches

from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk

RANGES = st.sampled_from([(), ((10, 10),), ((5, 25),), ((20, 20), (30, 40)), ((0, 9),)])


class PoliciesAgainstOracle(switches.SwitchAgainstOracle):
    """Lets other policies hold at any time."""

    @rule(slot=switches.SLOT, ranges=RANGES, native=switches.VLAN, provider=st.booleans(), listens=st.booleans())
    def make_trunk(
        self, slot: int, ranges: tuple[tuple[int, int], ...], native: int, provider: bool, listens: bool
    ) -> None:
        """Make a port a trunk, of which VLAN 0 is a part only as the native one."""
        policy = PolicyInForce(Trunk(ranges, native, provider), Security(promiscuous=listens))
        tagged = {vlan for first, last in ranges or ((0, 4094),) for vlan in range(first, last + 1)} - {0}
        self.let(slot, native, policy, oracle.NaiveTrunk(tagged, provider))

    @rule(slot=switches.SLOT, vlan=switches.VLAN, isolated=st.booleans(), listens=st.booleans())
    def make_access(self, slot: int, vlan: int, isolated: bool, listens: bool) -> None:
        """Make a port an access port, isolated or promiscuous perhaps."""
        self.let(slot, vlan, PolicyInForce(None, Security(promiscuous=listens), isolated=isolated), None)

    def let(self, slot: int, vlan: int, policy: PolicyInForce, trunk: oracle.NaiveTrunk | None) -> None:
        """Let a policy hold for both; entries of VLANs that the port left go."""
        port = self.naive.ports[slot]
        port.vlan, port.trunk = vlan, trunk
        port.isolated, port.promiscuous = policy.isolated, policy.security.promiscuous
        self.naive.table = {
            key: value
            for key, value in self.naive.table.items()
            if value[0] != slot or value[2] or port.carries(key[0])
        }
        self.engine.set_policy(slot, vlan, policy, self.now)

    def move(self, slot: int, vlan: int) -> None:
        """Ports come into another VLAN by their policies here."""


TestPoliciesAgainstOracle = PoliciesAgainstOracle.TestCase
TestPoliciesAgainstOracle.settings = settings(max_examples=70, stateful_step_count=40, deadline=None)
