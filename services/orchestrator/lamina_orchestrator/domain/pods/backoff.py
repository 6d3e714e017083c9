"""Exponential back-off between tries, as the kubelet counts it.

The first restart of a container is immediate, the second comes 10 s after the exit, then 20 s, 40 s … up to 5 min.
A run of more than 10 min starts the count anew. Source: k8s.io/client-go/util/flowcontrol/backoff.go and the kubelet's
`doBackOff`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_orchestrator.domain.kinds.timestamps import SECOND

INITIAL_NS = 10 * SECOND
LIMIT_NS = 300 * SECOND
FORGET_NS = 2 * LIMIT_NS


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long the next try waits; `updated_ns` is the end of the try before the last advance."""

    delay_ns: int = 0
    updated_ns: int = 0

    def ready_at(self, ended_ns: int) -> int:
        """When the next try may start, given that the last one ended then."""
        if not self.delay_ns or ended_ns - self.updated_ns > FORGET_NS:
            return ended_ns
        return ended_ns + self.delay_ns

    def advanced(self, ended_ns: int) -> Backoff:
        """The back-off after one more try was begun, given when the try before it ended."""
        if not self.delay_ns or ended_ns - self.updated_ns > FORGET_NS:
            return Backoff(INITIAL_NS, ended_ns)
        return Backoff(min(2 * self.delay_ns, LIMIT_NS), ended_ns)


NONE = Backoff()
"""No try was made: the first one does not wait."""


def after_tries(count: int, ended_ns: int) -> Backoff:
    """The back-off of a container of which only the number of restarts is known, after a restart of ours."""
    if count <= 0:
        return Backoff()
    return Backoff(min(INITIAL_NS << min(count - 1, 10), LIMIT_NS), ended_ns)
