"""What the bypass keeps of one port that takes part."""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_vswitch.domain.switch.topology import Switch
from lamina_vswitch.ebpf import bypass as code
from lamina_vswitch.io.backends.device_state import DeviceState

COUNTED = (code.IN_FRAMES, code.IN_BYTES, code.OUT_FRAMES, code.OUT_BYTES, code.LOST)
"""What processors count at a port, in the order of `Member.counted`."""


@dataclass(slots=True)
class Member:
    """A port that takes part: its number in the programs, its device and whether frames wait at its way out.

    `offset_ns` is the switch's time less the kernel's, `space` the network namespace, `hold` keeps the redirector.
    """

    switch: Switch
    number: int
    offset_ns: int
    space: int
    device: DeviceState
    filter: int
    hold: int
    waits: bool = False
    counted: list[int] = field(default_factory=lambda: [0] * len(COUNTED))
