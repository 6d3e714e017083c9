"""Why the work that is under way is under way: what the events that it leads to name as their cause.

A controller's turn looks at one object, its *subject*, because another one changed, a container exited, or a time came.
What the turn decides about its subject has that as its cause; what it does to other objects has the subject.
"""

from __future__ import annotations

from collections.abc import Callable

from lamina_orchestrator.domain.kinds.plain_object import Key

TIME = "time"
"""The cause of what is done because a time came."""


class Causes:
    """The subject and the reason of the present turn; outside turns `request` tells whose call is served."""

    def __init__(self, request: Callable[[], str]) -> None:
        self._request = request
        self._subject: Key | None = None
        self._reason = ""

    def begin(self, subject: Key | None, reason: str) -> None:
        """Notes what is worked on now, None for no single object, and why."""
        self._subject = subject
        self._reason = reason

    def of(self, key: Key) -> str:
        """Returns the cause of what is done to an object now; empty when nothing is known to be."""
        if self._subject is None or key == self._subject:
            return self._reason or self._request()
        return self._subject.resource_name
