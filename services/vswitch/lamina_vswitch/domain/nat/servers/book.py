"""Who set which virtual servers: changes by source and revision, all or none, within limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.nat.servers.definition import BACKENDS, SERVERS, Server, ServerDefinition, ServerKey


@dataclass(frozen=True, slots=True)
class ServerChange:
    """What one call wants. No server is named twice."""

    source: str
    revision: int = 0
    wanted: tuple[ServerDefinition, ...] = ()
    removed: tuple[ServerKey, ...] = ()
    replace_all: bool = False
    reset_removed: bool = False


@dataclass(frozen=True, slots=True)
class ServerDelta:
    """What a change comes down to: servers to set and to remove, and the newest revision of the source."""

    source: str
    revision: int
    wanted: tuple[ServerDefinition, ...]
    removed: tuple[ServerKey, ...]


@dataclass(slots=True)
class ServerBook:
    """The virtual servers of one network, and the newest revision of each source."""

    servers: dict[ServerKey, Server] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)

    def count(self, source: str) -> int:
        """Return how many servers a source has."""
        return sum(each.definition.source == source for each in self.servers.values())

    def all(self) -> list[Server]:
        """Return every server, ordered by address, protocol and port."""
        return [self.servers[key] for key in sorted(self.servers)]

    def delta(self, change: ServerChange) -> ServerDelta | None:
        """Return what a change comes down to; None: a newer one of its source has come already.

        Raises FailedPrecondition `VIRTUAL_SERVER_OWNED`, ResourceExhausted `VIRTUAL_SERVER_LIMIT`. Changes nothing.
        """
        newest = self.revisions.get(change.source, 0)
        if change.revision and change.revision <= newest:
            return None
        set_keys = {each.key for each in change.wanted}
        for key in (*sorted(set_keys), *change.removed):
            if key in self.servers and self.servers[key].definition.source != change.source:
                raise _owned(key, self.servers[key].definition.source)
        removed = {key for key in change.removed if key in self.servers}
        if change.replace_all:
            own = {key for key, each in self.servers.items() if each.definition.source == change.source}
            removed |= own - set_keys
        self._check_limits(change, removed)
        return ServerDelta(change.source, max(change.revision, newest), change.wanted, tuple(sorted(removed)))

    def _check_limits(self, change: ServerChange, removed: set[ServerKey]) -> None:
        after = {key: len(each.definition.backends) for key, each in self.servers.items() if key not in removed}
        after |= {each.key: len(each.backends) for each in change.wanted}
        if len(after) > SERVERS or sum(after.values()) > BACKENDS:
            raise ResourceExhausted(
                f"The network would have {len(after)} virtual servers with {sum(after.values())} backends; "
                f"{SERVERS} and {BACKENDS} are the limits.",
                reason="VIRTUAL_SERVER_LIMIT",
                next_step="Remove virtual servers that are not used, or spread them over networks.",
                servers=len(after),
                backends=sum(after.values()),
            )


def _owned(key: ServerKey, source: str) -> FailedPrecondition:
    address, protocol, port = key
    name = f"{format_address(address)}:{port}/{'tcp' if protocol == 6 else 'udp'}"
    return FailedPrecondition(
        f"The virtual server {name} was set by {source}.",
        reason="VIRTUAL_SERVER_OWNED",
        next_step=f"Let {source} remove it first, or choose another address or port.",
        virtual_server=name,
        source=source,
    )
