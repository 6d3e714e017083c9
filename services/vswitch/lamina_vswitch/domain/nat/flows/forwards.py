"""Forwarded ports: which port of the outside leads to which inside address and port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lamina_kit.names import Pattern
from lamina_vswitch.domain.nat.flows.entry import Endpoint

PORT_FORWARD_NAME = Pattern("hosts/{host}/networks/{network}/portForwards/{port_forward}")

OutsidePort = tuple[int, int, int]
"""Protocol number, outside address, outside port."""


@dataclass(frozen=True, slots=True)
class ForwardDefinition:
    """A forwarded port. Ports are 1 to 65535; a port 0 outside that was asked for has been chosen by now."""

    network: str
    port_forward: str
    protocol: int
    outside: Endpoint
    inside: Endpoint
    allow_remote: bool = False

    @property
    def key(self) -> OutsidePort:
        """What it takes of the outside."""
        return self.protocol, *self.outside


@dataclass(slots=True)
class Forward:
    """A forwarded port at work; `flows` came through it."""

    definition: ForwardDefinition
    flows: int = 0


class Forwards:
    """The forwarded ports of one network."""

    def __init__(self) -> None:
        self._by_id: dict[str, Forward] = {}
        self._by_port: dict[OutsidePort, Forward] = {}

    def add(self, definition: ForwardDefinition) -> Forward:
        """Add a forward whose id and outside port are free."""
        forward = self._by_id[definition.port_forward] = self._by_port[definition.key] = Forward(definition)
        return forward

    def remove(self, port_forward: str) -> Forward | None:
        """Remove a forward; None if there is none of that id."""
        forward = self._by_id.pop(port_forward, None)
        if forward is not None:
            del self._by_port[forward.definition.key]
        return forward

    def of(self, port_forward: str) -> Forward | None:
        """Return a forward by its id."""
        return self._by_id.get(port_forward)

    def at(self, key: OutsidePort) -> Forward | None:
        """Return the forward that has a port of the outside."""
        return self._by_port.get(key)

    def all(self) -> list[Forward]:
        """Return every forward, ordered by id."""
        return [self._by_id[each] for each in sorted(self._by_id)]

    def free_port(self, protocol: int, address: int, ports: range, usable: Callable[[int], bool]) -> int | None:
        """Return the lowest port of `ports` that no forward has and that is `usable`."""
        return next((port for port in ports if (protocol, address, port) not in self._by_port and usable(port)), None)
