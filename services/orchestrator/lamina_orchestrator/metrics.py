"""What the orchestrator tells of itself in numbers, when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable

from lamina_kit.telemetry.metrics import Family, by_label, counter, tally
from lamina_orchestrator.domain.kinds.kinds import KINDS, NODE, POD
from lamina_orchestrator.domain.pods.status import FAILED, PENDING, RUNNING_PHASE, SUCCEEDED, is_ready, phase_of
from lamina_orchestrator.engines.interface import Engine, Store

PHASES = (PENDING, RUNNING_PHASE, SUCCEEDED, FAILED)


def families(engine: Engine, store: Store) -> Iterable[Family]:
    """Yields objects by kind, pods by phase and nodes by readiness, and the revision of the store."""
    found = {kind.resource: engine.objects(kind) for kind in KINDS}
    counts = {resource: len(objects) for resource, objects in found.items()}
    yield by_label("lamina_orchestrator_objects", "Objects by resource.", "resource", counts)
    phases = tally(map(phase_of, found[POD.resource]), PHASES)
    yield by_label("lamina_orchestrator_pods", "Pods by phase.", "phase", phases)
    ready = tally(("true" if is_ready(node) else "false" for node in found[NODE.resource]), ("true", "false"))
    yield by_label("lamina_orchestrator_nodes", "Nodes by whether they are ready.", "ready", ready)
    yield counter("lamina_orchestrator_writes_total", "Writes to the store since it was made.", store.revision)
