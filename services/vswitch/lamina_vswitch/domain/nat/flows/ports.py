"""Which outside ports are whose: one for each inside address and port, whoever the peer is.

A mapping is independent of its endpoint (RFC 4787, REQ-1; RFC 5382, REQ-1): flows of one inside address and port to
several peers share an outside port, which is free again when the last of them ends. Ports are neither preserved nor
paired by parity. They are given in turn from a start that the seed chooses, and one that was given back goes to the
end of the queue, so that late packets rarely meet a new owner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

Inside = tuple[int, ...]
"""Protocol number, inside address, inside port; and what else tells apart flows that need ports of their own."""


@dataclass(slots=True)
class _Mapping:
    port: int
    flows: int = 0


class PortPool:
    """The outside ports `first` to `last` of one address, for each protocol. `offset` moves the start, from 0 on."""

    def __init__(self, first: int, last: int, offset: int) -> None:
        self._first, self._size, self._offset = first, last - first + 1, offset
        self._fresh: dict[int, int] = {}
        self._returned: dict[int, deque[int]] = {}
        self._mappings: dict[Inside, _Mapping] = {}
        self._reserved: set[tuple[int, int]] = set()
        self._used: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return len(self._mappings)

    @property
    def range(self) -> range:
        """The ports that are its own."""
        return range(self._first, self._first + self._size)

    def contains(self, port: int) -> bool:
        """Tell whether the pool is the owner of a port, used or not."""
        return self._first <= port < self._first + self._size

    def take(self, inside: Inside) -> int | None:
        """Return the outside port of an inside address and port for one more flow; None: every port is taken."""
        mapping = self._mappings.get(inside)
        if mapping is None:
            port = self._next(inside[0])
            if port is None:
                return None
            mapping = self._mappings[inside] = _Mapping(port)
            self._used.add((inside[0], port))
        mapping.flows += 1
        return mapping.port

    def give_back(self, inside: Inside) -> None:
        """End one flow of an inside address and port."""
        mapping = self._mappings[inside]
        mapping.flows -= 1
        if not mapping.flows:
            del self._mappings[inside]
            self._used.remove((inside[0], mapping.port))
            self._returned.setdefault(inside[0], deque()).append(mapping.port)

    def reserve(self, protocol: int, port: int) -> bool:
        """Keep a port for somebody else. False: it is in use."""
        if (protocol, port) in self._used or (protocol, port) in self._reserved:
            return False
        self._reserved.add((protocol, port))
        return True

    def release(self, protocol: int, port: int) -> None:
        """Let the pool have a reserved port again."""
        self._reserved.discard((protocol, port))
        if self.contains(port) and self._was_passed_over(protocol, port):
            self._returned.setdefault(protocol, deque()).append(port)

    def _next(self, protocol: int) -> int | None:
        while self._fresh.get(protocol, 0) < self._size:
            given = self._fresh[protocol] = self._fresh.get(protocol, 0) + 1
            port = self._first + (self._offset + given - 1) % self._size
            if (protocol, port) not in self._reserved:
                return port
        returned = self._returned.get(protocol, deque())
        while returned:
            port = returned.popleft()
            if (protocol, port) not in self._reserved:
                return port
        return None

    def _was_passed_over(self, protocol: int, port: int) -> bool:
        """Tell whether `_next` has gone past a port, so that it would not come to it again by itself."""
        place = (port - self._first - self._offset) % self._size
        returned = self._returned.get(protocol, deque())
        return place < self._fresh.get(protocol, 0) and port not in returned


class SharedPorts:
    """The same ports again for each remote end: what distinguishes flows to different ends is the end.

    So an address carries as many flows to each end as it has ports, and not in all. A pool is forgotten with the last
    flow to its end. `offset(size)` gives each new pool its start.
    """

    def __init__(self, first: int, last: int, offset: Callable[[int], int]) -> None:
        self._first, self._last, self._offset = first, last, offset
        self._pools: dict[Inside, PortPool] = {}

    def contains(self, port: int) -> bool:
        """Tell whether a port is one of these."""
        return self._first <= port <= self._last

    def take(self, end: Inside, flow: Inside) -> int | None:
        """Return a port for a flow to an end; None: every port is taken there. Both begin with the protocol."""
        pool = self._pools.get(end)
        if pool is None:
            pool = self._pools[end] = PortPool(self._first, self._last, self._offset(self._last - self._first + 1))
        return pool.take(flow)

    def give_back(self, end: Inside, flow: Inside) -> None:
        """End a flow to an end."""
        self._pools[end].give_back(flow)
        if not len(self._pools[end]):
            del self._pools[end]
