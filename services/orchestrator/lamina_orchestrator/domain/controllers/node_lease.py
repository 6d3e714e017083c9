"""Node leases in closed form: a node whose runtime answers renews every 10 s without an event or a write.

A node is healthy as long as the stream to its runtime stands. Its last renewal follows from when the stream began;
only the beginning and the end of a stream are written.
"""

from __future__ import annotations

from typing import Any

from lamina_orchestrator.domain.controllers.namespaces import NODE_LEASES
from lamina_orchestrator.domain.kinds.kinds import LEASE
from lamina_orchestrator.domain.kinds.plain_object import Object, name_of, uid_of
from lamina_orchestrator.domain.kinds.timestamps import SECOND, rfc3339_micro

RENEW_NS = 10 * SECOND
DURATION_SECONDS = 40


def renewed_at(since_ns: int, now_ns: int) -> int:
    """The last renewal of a node that has answered since `since_ns`."""
    return since_ns + max(0, now_ns - since_ns) // RENEW_NS * RENEW_NS


def new_lease(node: Object) -> Object:
    """The lease of a node that never answered yet."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name_of(node), "uid": uid_of(node)}
    spec: dict[str, Any] = {"holderIdentity": name_of(node), "leaseDurationSeconds": DURATION_SECONDS}
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.name,
        "metadata": {"name": name_of(node), "namespace": NODE_LEASES, "ownerReferences": [owner]},
        "spec": spec,
    }


def with_renewal(lease: Object, renewed_ns: int) -> Object:
    """The lease renewed at that time."""
    return {**lease, "spec": {**(lease.get("spec") or {}), "renewTime": rfc3339_micro(renewed_ns)}}
