"""The Deployment controller: one ReplicaSet a template, moved over by the rollout strategy.

Source: Kubernetes documentation, "Deployments"; k8s.io/kubernetes/pkg/controller/deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lamina_orchestrator.domain.admission.defaults import POD_TEMPLATE_HASH
from lamina_orchestrator.domain.controllers.deployment_status import deployment_status, is_complete
from lamina_orchestrator.domain.controllers.rollout import (
    DESIRED,
    MAXIMUM,
    REVISION,
    Bounds,
    bounds_of,
    new_size,
    old_sizes,
    revision_number,
    scaled_sizes,
    share_of,
)
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, REPLICA_SET
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    annotations_of,
    clone,
    is_deleting,
    metadata,
    name_of,
    namespace_of,
    spec_of,
    status_of,
    uid_of,
    with_annotations,
)
from lamina_orchestrator.domain.kinds.timestamps import parse_time
from lamina_orchestrator.domain.objects.actions import NORMAL, Action, Create, Decide, Emit, Remove, Replace, SetStatus
from lamina_orchestrator.domain.objects.names import template_hash
from lamina_orchestrator.domain.objects.ownership import TRACEPARENT, claim, controller_reference, inherit_trace
from lamina_orchestrator.domain.objects.patch import LAST_APPLIED
from lamina_orchestrator.domain.objects.selectors import label_selector

_COMPONENT = "deployment-controller"
_NOT_COPIED = (LAST_APPLIED, REVISION, DESIRED, MAXIMUM, TRACEPARENT)


def reconcile(
    deployment: Object,
    candidates: Sequence[Object],
    now_ns: int,
    is_taken: Callable[[str], bool],
    has_pods: Callable[[Object], bool],
) -> list[Action]:
    """What moves a Deployment one step on, and its status.

    `candidates` are the ReplicaSets that it controls and those of its namespace without controller, ordered by name.
    `is_taken(name)` says whether a ReplicaSet of that name exists, `has_pods(replica_set)` whether pods of it run.
    """
    selector = label_selector(spec_of(deployment)["selector"])
    sets, actions = claim(deployment, DEPLOYMENT, REPLICA_SET, selector, candidates)
    if is_deleting(deployment):
        return actions
    rollout = _Rollout(deployment, sets, now_ns)
    return actions + rollout.actions(is_taken, has_pods)


def same_template(template: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two pod templates are equal but for the hash label."""
    return _without_hash(template) == _without_hash(other)


def _without_hash(template: dict[str, Any]) -> dict[str, Any]:
    fields = template.get("metadata") or {}
    labels = {name: value for name, value in (fields.get("labels") or {}).items() if name != POD_TEMPLATE_HASH}
    return {**template, "metadata": {**fields, "labels": labels}}


class _Rollout:
    """One reconciliation of one Deployment."""

    def __init__(self, deployment: Object, sets: Sequence[Object], now_ns: int) -> None:
        self.deployment = deployment
        self.key: Key = DEPLOYMENT.key(namespace_of(deployment), name_of(deployment))
        self.now_ns = now_ns
        self.bounds: Bounds = bounds_of(deployment)
        self.sets = sorted(sets, key=_age)
        template = spec_of(deployment)["template"]
        same = [found for found in self.sets if same_template(spec_of(found)["template"], template)]
        self.new: Object | None = same[0] if same else None
        self.old = [found for found in self.sets if found is not self.new]

    def actions(self, is_taken: Callable[[str], bool], has_pods: Callable[[Object], bool]) -> list[Action]:
        if self._was_scaled():
            return self._scale() + self._status()
        if spec_of(self.deployment).get("paused"):
            return self._status()
        recreate = spec_of(self.deployment)["strategy"]["type"] == "Recreate"
        stopping = recreate and any(has_pods(found) for found in self.old)
        shrunk = (
            self._resize({name_of(found): 0 for found in self.old}, "Recreate: old pods go first") if recreate else []
        )
        if shrunk:
            return shrunk + self._status()
        if self.new is None:
            return self._status() if stopping else self._create(is_taken)
        return self._annotate() or (self._recreate(stopping) if recreate else self._roll()) + self._status()

    def _was_scaled(self) -> bool:
        shares = [share_of(found) for found in self.sets]
        return any(share.replicas and share.desired not in (None, self.bounds.replicas) for share in shares)

    def _scale(self) -> list[Action]:
        shares = [share_of(found) for found in self.sets]
        new = share_of(self.new) if self.new else None
        before = int(status_of(self.deployment).get("replicas", 0))
        sizes = scaled_sizes(self.bounds, new, shares, before)
        return self._resize(sizes, "spec.replicas changed: each ReplicaSet keeps its proportion", every=True)

    def _create(self, is_taken: Callable[[str], bool]) -> list[Action]:
        collisions = int(status_of(self.deployment).get("collisionCount", 0))
        template = spec_of(self.deployment)["template"]
        label = template_hash(template, collisions)
        name = f"{name_of(self.deployment)[: 252 - len(label)]}-{label}"
        if is_taken(name):
            status = {**status_of(self.deployment), "collisionCount": collisions + 1}
            return [SetStatus(DEPLOYMENT, self.key, status)]
        size = new_size(self.bounds, None, [share_of(found) for found in self.sets])
        made = self._new_set(name, label, size)
        inputs: dict[str, str | int] = {"replica_set": name, "replicas": size, "old_sets": len(self.old)}
        rule = "no ReplicaSet has the Deployment's template"
        text = f"Scaled up replica set {name} from 0 to {size}"
        status = {**status_of(self.deployment), **self._fresh_status(name)}
        return [
            Decide(self.key, "replica_set.created", rule, inputs=inputs),
            Create(REPLICA_SET, made),
            *([Emit(self.deployment, NORMAL, "ScalingReplicaSet", text, _COMPONENT)] if size else []),
            SetStatus(DEPLOYMENT, self.key, status),
        ]

    def _fresh_status(self, name: str) -> dict[str, Any]:
        return deployment_status(self.deployment, self.sets, None, self.bounds, self.now_ns, created=name)[0]

    def _new_set(self, name: str, label: str, size: int) -> Object:
        spec = spec_of(self.deployment)
        template = clone(spec["template"])
        labels = {**(template["metadata"].get("labels") or {}), POD_TEMPLATE_HASH: label}
        template["metadata"] = {**template["metadata"], "labels": labels}
        selector = clone(spec["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), POD_TEMPLATE_HASH: label}
        made = {"replicas": size, "selector": selector, "template": template}
        if spec.get("minReadySeconds"):
            made["minReadySeconds"] = spec["minReadySeconds"]
        fields = {
            "name": name,
            "namespace": namespace_of(self.deployment),
            "labels": labels,
            "annotations": self._annotations(self._next_revision()),
            "ownerReferences": [controller_reference(DEPLOYMENT, self.deployment)],
        }
        return inherit_trace(self.deployment, {"metadata": fields, "spec": made})

    def _next_revision(self) -> int:
        return max((revision_number(found) for found in self.old), default=0) + 1

    def _annotations(self, revision: int) -> dict[str, str]:
        copied = {key: text for key, text in annotations_of(self.deployment).items() if key not in _NOT_COPIED}
        return {**copied, REVISION: str(revision), **self._counts()}

    def _counts(self) -> dict[str, str]:
        return {DESIRED: str(self.bounds.replicas), MAXIMUM: str(self.bounds.replicas + self.bounds.surge)}

    def _annotate(self) -> list[Action]:
        """Brings revision, counts and minReadySeconds of the newest set, and the Deployment's revision, up to date."""
        assert self.new is not None
        revision = max(revision_number(self.new), self._next_revision())
        wanted = inherit_trace(self.deployment, with_annotations(self.new, **self._annotations(revision)))
        minimum = spec_of(self.deployment).get("minReadySeconds", 0)
        if spec_of(wanted).get("minReadySeconds", 0) != minimum:
            wanted = {**wanted, "spec": {**spec_of(wanted), "minReadySeconds": minimum}}
        made: list[Action] = [Replace(REPLICA_SET, wanted)] if wanted != self.new else []
        if annotations_of(self.deployment).get(REVISION) != str(revision):
            made.append(Replace(DEPLOYMENT, with_annotations(self.deployment, **{REVISION: str(revision)})))
        return made

    def _roll(self) -> list[Action]:
        assert self.new is not None
        new, old = share_of(self.new), [share_of(found) for found in self.old]
        size = new_size(self.bounds, new, [new, *old])
        grown = self._resize({new.name: size}, "rolling update: maxSurge leaves room for new pods")
        if grown:
            return grown
        sizes = old_sizes(self.bounds, new, old)
        return self._resize(sizes, "rolling update: maxUnavailable lets old pods go") or self._clean_up()

    def _recreate(self, stopping: bool) -> list[Action]:
        assert self.new is not None
        if stopping:
            return []
        grown = self._resize({name_of(self.new): self.bounds.replicas}, "Recreate: no old pod is left")
        return grown or self._clean_up()

    def _resize(self, sizes: dict[str, int], rule: str, *, every: bool = False) -> list[Action]:
        made: list[Action] = []
        for found in self.sets:
            before = int(spec_of(found)["replicas"])
            after = sizes.get(name_of(found), before)
            if after == before and not every:
                continue
            resized = with_annotations({**found, "spec": {**spec_of(found), "replicas": after}}, **self._counts())
            resized = inherit_trace(self.deployment, resized)
            if resized != found:
                made.append(Replace(REPLICA_SET, resized))
            if after != before:
                made += self._explain(found, before, after, rule)
        return made

    def _explain(self, found: Object, before: int, after: int, rule: str) -> list[Action]:
        verb = "up" if after > before else "down"
        text = f"Scaled {verb} replica set {name_of(found)} from {before} to {after}"
        inputs: dict[str, str | int] = {"replica_set": name_of(found), "from": before, "to": after}
        return [
            Decide(self.key, f"replica_set.scaled_{verb}", rule, inputs=inputs),
            Emit(self.deployment, NORMAL, "ScalingReplicaSet", text, _COMPONENT),
        ]

    def _clean_up(self) -> list[Action]:
        if not is_complete(self.deployment, status_of(self.deployment)):
            return []
        idle = [found for found in self.old if _is_idle(found)]
        surplus = len(idle) - int(spec_of(self.deployment)["revisionHistoryLimit"])
        oldest = sorted(idle, key=lambda found: (revision_number(found), _age(found)))[: max(0, surplus)]
        return [
            Remove(REPLICA_SET.key(namespace_of(found), name_of(found)), uid_of(found), "beyond revisionHistoryLimit")
            for found in oldest
        ]

    def _status(self) -> list[Action]:
        status, again = deployment_status(self.deployment, self.sets, self.new, self.bounds, self.now_ns)
        changed = status != status_of(self.deployment)
        return [*([SetStatus(DEPLOYMENT, self.key, status)] if changed else []), *again]


def _age(found: Object) -> tuple[int, str]:
    return parse_time(metadata(found)["creationTimestamp"]), name_of(found)


def _is_idle(found: Object) -> bool:
    status = status_of(found)
    observed = status.get("observedGeneration") == metadata(found).get("generation")
    return not spec_of(found)["replicas"] and not status.get("replicas") and observed and not is_deleting(found)
