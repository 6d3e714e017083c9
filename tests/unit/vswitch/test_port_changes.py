"""What a watcher of ports has still to be told."""

from __future__ import annotations

from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.domain.port.changes import MAX_CHANGES, PortChanges


def port(name: str, slot: int, generation: int = 1, group: str = "") -> PortDefinition:
    """Returns a port."""
    return PortDefinition("s1", name, group, True, "", slot, generation)


def told(changes: PortChanges) -> list[tuple[str, str, bool]]:
    """Takes what waits, as name, group and end."""
    return [(change.port.port, change.port.port_group, change.deleted) for change in changes.take()]


def test_changes_merge_into_the_newest_and_keep_their_order() -> None:
    """A port that changes again while it waits keeps its place and has its newest state."""
    changes = PortChanges()
    changes.changed(port("a", 1))
    changes.changed(port("b", 2))
    changes.changed(port("a", 1, group="g"))
    assert told(changes) == [("a", "g", False), ("b", "", False)] and told(changes) == []


def test_a_port_that_came_and_went_unseen_is_not_told() -> None:
    """Only the end of a port that the watcher knows is told, so what waits is bounded by the ports there are."""
    changes = PortChanges()
    for generation in range(1, 1000):
        changes.changed(port("a", 1, generation))
        changes.gone(port("a", 1, generation))
    assert len(changes) == 0
    changes.changed(port("a", 1, 1000))
    assert told(changes) == [("a", "", False)]
    changes.gone(port("a", 1, 1000))
    changes.changed(port("a", 1, 1001))
    assert told(changes) == [("a", "", True), ("a", "", False)]


def test_a_message_has_at_most_256_changes() -> None:
    """The rest waits for the next one."""
    changes = PortChanges()
    for slot in range(MAX_CHANGES + 1):
        changes.changed(port(f"p{slot}", slot))
    assert [len(changes.take()), len(changes.take())] == [MAX_CHANGES, 1]
