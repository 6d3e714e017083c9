"""A port in a VLAN, on the kernel."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_vswitch.engines.linux.bridge.taps import Tap
from lamina_vswitch.engines.linux.netlink.links import PortSettings


@dataclass(slots=True)
class Leg:
    """A port in a VLAN: its TAP, none for a device of the kernel; index of what the bridge has, and what was set."""

    slot: int
    vlan: int
    tap: Tap | None
    index: int
    settings: PortSettings
