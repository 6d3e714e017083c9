"""Which nodes answer: the streams to their runtimes, and the leases that follow from them in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lamina_orchestrator.domain.controllers.namespaces import NODE_LEASES
from lamina_orchestrator.domain.controllers.node_lease import new_lease, renewed_at, with_renewal
from lamina_orchestrator.domain.controllers.nodes import ADDRESS, Heartbeat
from lamina_orchestrator.domain.kinds.kinds import LEASE
from lamina_orchestrator.domain.kinds.plain_object import Object, annotations_of, name_of
from lamina_orchestrator.domain.pods.status import condition
from lamina_orchestrator.engines.interface import Connect, Disconnect, Outgoing


@dataclass(frozen=True, slots=True)
class Link:
    """The stream to one node's runtime. `since_ns` is when it began to answer, or to be silent."""

    address: str
    answers: bool
    ever: bool
    since_ns: int
    renewed_ns: int


class NodeLinks:
    """The links of all nodes, kept in step with the Node objects."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._effects: list[Outgoing] = []

    def follow(self, node: Object, now_ns: int) -> None:
        """Opens the link of a node that is new, or whose address changed."""
        name, address = name_of(node), annotations_of(node).get(ADDRESS, "")
        link = self._links.get(name)
        if link is not None and link.address == address:
            return
        if link is not None and link.address:
            self._effects.append(Disconnect(name))
        known = condition(node, "Ready")
        ever = known is not None and known["status"] != "False"
        self._links[name] = Link(address, False, ever, now_ns, now_ns)
        if address:
            self._effects.append(Connect(name, address))

    def drop(self, name: str) -> None:
        """Closes the link of a node that is gone."""
        link = self._links.pop(name, None)
        if link is not None and link.address:
            self._effects.append(Disconnect(name))

    def answers(self, name: str, now_ns: int) -> bool:
        """Takes in that a node answers; returns whether the node is known."""
        link = self._links.get(name)
        if link is None:
            return False
        self._links[name] = replace(link, answers=True, ever=True, since_ns=now_ns, renewed_ns=now_ns)
        return True

    def silent(self, name: str, now_ns: int) -> bool:
        """Takes in that a node does not answer; returns whether that is news."""
        link = self._links.get(name)
        if link is None or not link.answers:
            return False
        renewed = renewed_at(link.since_ns, now_ns)
        self._links[name] = replace(link, answers=False, since_ns=now_ns, renewed_ns=renewed)
        return True

    def is_up(self, name: str) -> bool:
        """Whether the node answers now."""
        link = self._links.get(name)
        return link is not None and link.answers

    def heartbeat(self, name: str) -> Heartbeat:
        """What the node controller looks at."""
        link = self._links[name]
        return Heartbeat(link.answers, link.ever, link.renewed_ns)

    def lease(self, node: Object, stored: Object | None) -> Object:
        """The lease of a node to be stored when its link begins or ends."""
        return with_renewal(stored or new_lease(node), self._links[name_of(node)].renewed_ns)

    def renewed(self, obj: Object, now_ns: int) -> Object:
        """A lease as it reads now: that of a node which answers is renewed every 10 s without being written."""
        if obj["kind"] != LEASE.name or obj["metadata"].get("namespace") != NODE_LEASES:
            return obj
        link = self._links.get(name_of(obj))
        return with_renewal(obj, renewed_at(link.since_ns, now_ns)) if link is not None and link.answers else obj

    def take_effects(self) -> list[Outgoing]:
        """The effects that came up since the last call."""
        taken, self._effects = self._effects, []
        return taken
