"""What one watcher of a switch's ports has still to be told: states, no queue, so that a slow one costs no memory."""

from __future__ import annotations

from typing import NamedTuple

from lamina_vswitch.domain.definitions.switches import PortDefinition

MAX_CHANGES = 256

Identity = tuple[int, int]
"""Slot and generation: a port that takes the place and the name of another one is another port."""


class Change(NamedTuple):
    """A port, as it was known last, whose state is to be told, or that is gone."""

    port: PortDefinition
    deleted: bool


class PortChanges:
    """Pending changes in the order in which the first of each port came; later ones of a port merge into it.

    At most one change waits for each port that is there or that the watcher was told of.
    """

    def __init__(self) -> None:
        self._pending: dict[Identity, Change] = {}
        self._told: set[Identity] = set()

    def __len__(self) -> int:
        return len(self._pending)

    def changed(self, port: PortDefinition) -> None:
        """Note that a port is there and has perhaps another state."""
        self._pending[_identity(port)] = Change(port, deleted=False)

    def gone(self, port: PortDefinition) -> None:
        """Note that a port is gone. Of one that was never told, nothing is."""
        identity = _identity(port)
        if identity in self._told:
            self._pending[identity] = Change(port, deleted=True)
        else:
            self._pending.pop(identity, None)

    def take(self) -> list[Change]:
        """Take the next changes, at most 256."""
        taken = [(identity, self._pending[identity]) for identity in list(self._pending)[:MAX_CHANGES]]
        for identity, change in taken:
            del self._pending[identity]
            if change.deleted:
                self._told.discard(identity)
            else:
                self._told.add(identity)
        return [change for _, change in taken]


def _identity(port: PortDefinition) -> Identity:
    return port.slot, port.generation
