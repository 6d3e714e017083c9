"""Configuration of the vswitch layer: section `[vswitch]` of the file, `LAMINA_VSWITCH_…` in the environment."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.checks import Checks


@dataclass(frozen=True)
class VswitchConfig:
    """Limits of one host.

    max_switches: most switches, 1 to 4096. max_ports: most ports on all switches together, 1 to 65536. max_networks:
    most networks, 1 to 4096. nat_namespace: path of the network namespace whose kernel translates for networks with
    OUTSIDE_KERNEL, for example /run/netns/blue; empty: that of the service. bypass: whether the kernel may hand on
    known frames between interfaces (`packet` backends), so that they do not come into this process.
    """

    max_switches: int = 64
    max_ports: int = 4096
    max_networks: int = 256
    nat_namespace: str = ""
    bypass: bool = True

    def __post_init__(self) -> None:
        with Checks("CONFIG_OUT_OF_RANGE") as check:
            check.range("vswitch.max_switches", self.max_switches, 1, 4096)
            check.range("vswitch.max_ports", self.max_ports, 1, 65536)
            check.range("vswitch.max_networks", self.max_networks, 1, 4096)
