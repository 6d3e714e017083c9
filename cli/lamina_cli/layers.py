"""The layers in the order of their start, and which calls which; known without loading any of them."""

from __future__ import annotations

from collections.abc import Mapping

CALLS: dict[str, tuple[str, ...]] = {
    "hardware": (),
    "mmu": ("hardware",),
    "vswitch": ("hardware",),
    "hypervisor": ("mmu", "vswitch", "hardware"),
    "container-runtime": ("mmu", "vswitch", "hardware"),
    "orchestrator": ("container-runtime", "hypervisor", "vswitch"),
}
"""The layers in the order of their start, each with the layers that it calls."""


def layers_of(engines: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the layers that start with these engines, in that order: each that has one, and whatever it calls too."""
    found: list[str] = []
    for layer, below in CALLS.items():
        if layer in engines and all(name in found for name in below):
            found.append(layer)
    return tuple(found)
