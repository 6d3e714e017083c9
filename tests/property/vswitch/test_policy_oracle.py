"""Engines with trunks, isolated and promiscuous ports against the naive switch, beside all that it met before."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk


def _sibling(name: str) -> ModuleType:
    """Load a module that lies beside this one; test folders are not packages."""
    spec = importlib.util.spec_from_file_location(f"vswitch_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


switches = _sibling("test_switch_oracle")

RANGES = st.sampled_from([(), ((10, 10),), ((5, 25),), ((20, 20), (30, 40)), ((0, 9),)])


class PoliciesAgainstOracle(switches.SwitchAgainstOracle):  # type: ignore[misc,name-defined]
    """Lets other policies hold at any time."""

    @rule(slot=switches.SLOT, ranges=RANGES, native=switches.VLAN, provider=st.booleans(), listens=st.booleans())
    def make_trunk(
        self, slot: int, ranges: tuple[tuple[int, int], ...], native: int, provider: bool, listens: bool
    ) -> None:
        """Make a port a trunk, of which VLAN 0 is a part only as the native one."""
        policy = PolicyInForce(Trunk(ranges, native, provider), Security(promiscuous=listens))
        tagged = {vlan for first, last in ranges or ((0, 4094),) for vlan in range(first, last + 1)} - {0}
        self.let(slot, native, policy, switches.oracle.NaiveTrunk(tagged, provider))

    @rule(slot=switches.SLOT, vlan=switches.VLAN, isolated=st.booleans(), listens=st.booleans())
    def make_access(self, slot: int, vlan: int, isolated: bool, listens: bool) -> None:
        """Make a port an access port, isolated or promiscuous perhaps."""
        self.let(slot, vlan, PolicyInForce(None, Security(promiscuous=listens), isolated=isolated), None)

    def let(self, slot: int, vlan: int, policy: PolicyInForce, trunk: object) -> None:
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
