"""Engines: which are installed, whether they can run here, and which may be combined.

An engine is a class that an entry point of the group `lamina.engines.<layer>` names, so that others can ship one. It
has a class method `missing() -> list[str]`: why it cannot run on this machine, one sentence a reason; empty when it
can. Three sets of engines are supported, and any other mix is refused at start:

    set      hardware  mmu    vswitch  hypervisor  container-runtime  orchestrator
    model    model     model  model    model       model              model
    kvm      kvm       model  model    model       (none)             model
    linux    linux     linux  linux    (none)      linux              model

`model`: everything is modelled. `kvm`: KVM cores under the modelled memory and devices, for VMs only. `linux`: the
kernel does memory, switching and containers. The orchestrator has one engine: it touches no machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from lamina_kit.checks import shown
from lamina_kit.errors import FailedPrecondition, InvalidArgument

LAYERS = ("hardware", "mmu", "vswitch", "hypervisor", "container-runtime", "orchestrator")
"""The layers, in the order in which they start."""

GROUP = "lamina.engines."

SETS: dict[str, dict[str, str]] = {
    "model": dict.fromkeys(LAYERS, "model"),
    "kvm": {"hardware": "kvm", "mmu": "model", "vswitch": "model", "hypervisor": "model", "orchestrator": "model"},
    "linux": {
        "hardware": "linux",
        "mmu": "linux",
        "vswitch": "linux",
        "container-runtime": "linux",
        "orchestrator": "model",
    },
}
"""The supported sets: layer → engine. A layer that a set does not name cannot be part of it."""


def entry_points(layer: str) -> dict[str, metadata.EntryPoint]:
    """Returns the engines that are registered for a layer, by name in alphabetical order, without importing them."""
    found = {point.name: point for point in metadata.entry_points(group=GROUP + layer.replace("-", "_"))}
    return {name: found[name] for name in sorted(found)}


def engines_of(layer: str) -> dict[str, type[Any]]:
    """Returns the engine classes of a layer by name, in alphabetical order; imports them."""
    return {name: point.load() for name, point in entry_points(layer).items()}


def load_engine(layer: str, name: str) -> type[Any]:
    """Returns the engine class `name` of a layer, once it has said that it can run here.

    Raises `InvalidArgument` `LAYER_UNKNOWN` or `ENGINE_UNKNOWN`, naming the known ones, and `FailedPrecondition`
    `ENGINE_CANNOT_RUN` with the reasons that the engine gives.
    """
    if layer not in LAYERS:
        raise InvalidArgument(
            f"There is no layer {shown(layer)}.", reason="LAYER_UNKNOWN", next_step=f"Layers are {', '.join(LAYERS)}."
        )
    points = entry_points(layer)
    if name not in points:
        raise InvalidArgument(
            f"The {layer} layer has no engine {shown(name)}.",
            reason="ENGINE_UNKNOWN",
            next_step=f"Installed are: {', '.join(points) or 'none'}.",
            layer=layer,
        )
    engine: type[Any] = points[name].load()
    check_runnable(layer, name, engine)
    return engine


def check_runnable(layer: str, name: str, engine: type[Any]) -> None:
    """Raises `FailedPrecondition` `ENGINE_CANNOT_RUN` when an engine says that it cannot run here."""
    reasons: list[str] = engine.missing()
    if reasons:
        raise FailedPrecondition(
            f"The engine {name} of the {layer} layer cannot run here: {'; '.join(reasons)}.",
            reason="ENGINE_CANNOT_RUN",
            next_step=f"Provide what is missing, or choose another engine: {', '.join(entry_points(layer))}.",
            layer=layer,
            engine=name,
        )


def check_set(choice: Mapping[str, str]) -> str:
    """Returns the name of the supported set that `choice` (layer → engine) is a part of.

    Raises `InvalidArgument` `LAYER_UNKNOWN` for a name that is no layer, `ENGINE_SET_UNSUPPORTED` for any other mix.
    """
    for layer in choice:
        if layer not in LAYERS:
            raise InvalidArgument(
                f"There is no layer {shown(layer)}.",
                reason="LAYER_UNKNOWN",
                next_step=f"Layers are {', '.join(LAYERS)}.",
            )
    for name, engines in SETS.items():
        if all(engines.get(layer) == engine for layer, engine in choice.items()):
            return name
    chosen = ", ".join(f"{layer}={choice[layer]}" for layer in LAYERS if layer in choice)
    raise InvalidArgument(
        f"The engines {chosen} do not work together.",
        reason="ENGINE_SET_UNSUPPORTED",
        next_step=f"Use one of the sets: {', '.join(SETS)}.",
    )
