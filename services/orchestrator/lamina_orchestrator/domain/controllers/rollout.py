"""The arithmetic of a rollout: how many replicas each ReplicaSet of a Deployment gets.

Source: Kubernetes documentation, "Deployments" (rolling update, proportional scaling);
k8s.io/kubernetes/pkg/controller/deployment/{rolling,sync}.go and util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina_orchestrator.domain.kinds.plain_object import Object, annotations_of, metadata, name_of, spec_of, status_of
from lamina_orchestrator.domain.kinds.timestamps import parse_time

REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a rolling update may go: `surge` pods above and `unavailable` pods below `replicas`."""

    replicas: int
    surge: int
    unavailable: int

    @property
    def most(self) -> int:
        """Most pods at one time; none when none are wanted."""
        return self.replicas + self.surge if self.replicas else 0

    @property
    def least(self) -> int:
        """Fewest available pods."""
        return self.replicas - self.unavailable


@dataclass(frozen=True, slots=True)
class Share:
    """One ReplicaSet of the Deployment, in numbers."""

    name: str
    replicas: int
    available: int
    created_ns: int
    revision: int
    desired: int | None
    maximum: int | None


def share_of(replica_set: Object) -> Share:
    """The numbers of a ReplicaSet."""
    notes = annotations_of(replica_set)
    return Share(
        name_of(replica_set),
        int(spec_of(replica_set)["replicas"]),
        int(status_of(replica_set).get("availableReplicas", 0)),
        parse_time(metadata(replica_set)["creationTimestamp"]),
        revision_number(replica_set),
        _number(notes.get(DESIRED)),
        _number(notes.get(MAXIMUM)),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 11 else None


def revision_number(obj: Object) -> int:
    """The rollout revision that an annotation gives; 0 without one."""
    return _number(annotations_of(obj).get(REVISION)) or 0


def bounds_of(deployment: Object) -> Bounds:
    """The bounds of a Deployment: surge rounds up, unavailable rounds down, and they are never both zero."""
    spec = spec_of(deployment)
    replicas = int(spec["replicas"])
    rolling = spec["strategy"].get("rollingUpdate")
    if not rolling:
        return Bounds(replicas, 0, 0)
    surge = _scaled(rolling["maxSurge"], replicas, up=True)
    unavailable = _scaled(rolling["maxUnavailable"], replicas, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return Bounds(replicas, surge, min(unavailable, replicas))


def _scaled(value: int | str, total: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = int(value[:-1]) * total
    return -(-share // 100) if up else share // 100


def new_size(bounds: Bounds, new: Share | None, everyone: Sequence[Share]) -> int:
    """How many replicas the newest ReplicaSet may have now."""
    have = new.replicas if new else 0
    if have >= bounds.replicas:
        return bounds.replicas
    room = bounds.replicas + bounds.surge - sum(share.replicas for share in everyone)
    return have + max(0, min(room, bounds.replicas - have))


def old_sizes(bounds: Bounds, new: Share, old: Sequence[Share]) -> dict[str, int]:
    """New sizes of the older ReplicaSets that may shrink now; unhealthy replicas go first, then the oldest sets."""
    total = new.replicas + sum(share.replicas for share in old)
    unavailable_new = new.replicas - new.available
    room = total - bounds.least - unavailable_new
    sizes = {share.name: share.replicas for share in sorted(old, key=lambda share: (share.created_ns, share.name))}
    if room <= 0:
        return {}
    by_name = {share.name: share for share in old}
    cleaned = 0
    for name, size in sizes.items():
        unhealthy = size - min(by_name[name].available, size)
        less = min(room - cleaned, unhealthy)
        sizes[name], cleaned = size - less, cleaned + less
    spare = new.available + sum(share.available for share in old) - bounds.least
    for name, size in sizes.items():
        less = max(0, min(size, spare))
        sizes[name], spare = size - less, spare - less
    return {name: size for name, size in sizes.items() if size != by_name[name].replicas}


def scaled_sizes(bounds: Bounds, new: Share | None, everyone: Sequence[Share], before: int) -> dict[str, int]:
    """New sizes when the Deployment's own count changed in the middle of a rollout: each set keeps its proportion.

    `before` is the count of replicas that the Deployment's status last showed.
    """
    active = [share for share in everyone if share.replicas > 0]
    if len(active) <= 1:
        only = active[0] if active else new or max(everyone, key=lambda share: share.revision, default=None)
        return {only.name: bounds.replicas} if only and only.replicas != bounds.replicas else {}
    if new and new.replicas == bounds.replicas == new.desired == new.available:
        return {share.name: 0 for share in active if share.name != new.name}
    add = bounds.most - sum(share.replicas for share in active)
    age = -1 if add > 0 else 1
    order = sorted(active, key=lambda share: (-share.replicas, age * share.created_ns, share.name))
    sizes: dict[str, int] = {}
    added = 0
    for share in order:
        part = _proportion(bounds, share, add, added, before) if add else 0
        sizes[share.name], added = share.replicas + part, added + part
    if order and add:
        first = order[0].name
        sizes[first] = max(0, sizes[first] + add - added)
    return {share.name: sizes[share.name] for share in order if sizes[share.name] != share.replicas}


def _proportion(bounds: Bounds, share: Share, add: int, added: int, before: int) -> int:
    if not share.replicas or add == added:
        return 0
    if not bounds.replicas:
        fraction = -share.replicas
    else:
        base = share.maximum or before or share.replicas
        grown = share.replicas * (bounds.replicas + bounds.surge)
        fraction = (2 * grown + base) // (2 * base) - share.replicas
    return min(fraction, add - added) if add > 0 else max(fraction, add - added)
