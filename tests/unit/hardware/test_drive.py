"""What a device has to tell its driver: states that merge."""

from __future__ import annotations

from lamina_hardware.domain.devices.drive import Interrupts, Link, Outbox, Refused


def test_interrupts_merge_by_vector() -> None:
    """One message has all vectors that wait, ascending, the time of the first and how many they were."""
    outbox = Outbox()
    for vector, now in ((7, 10), (2, 20), (7, 30)):
        outbox.interrupt(vector, now)
    assert outbox.take() == Interrupts((2, 7), 10, 3)
    assert outbox.take() is None


def test_masked_vectors_stay() -> None:
    """They come once they are unmasked, those beside them at once; masking twice is masking once."""
    outbox = Outbox()
    outbox.mask([1, 1, 2])
    for vector in (0, 1, 2):
        outbox.interrupt(vector, vector)
    assert outbox.take() == Interrupts((0,), 0, 1)
    outbox.unmask([2, 9])
    assert outbox.take() == Interrupts((2,), 2, 1)
    assert outbox.take() is None
    outbox.unmask([1])
    assert outbox.take() == Interrupts((1,), 1, 1)


def test_a_newer_link_replaces_an_older_one() -> None:
    """Only the last state is told, before all else; a link that is down has no rate."""
    outbox = Outbox()
    outbox.interrupt(0, 5)
    outbox.link(True, 10)
    outbox.link(False, 10)
    assert outbox.take() == Link(False, 0)
    assert outbox.take() == Interrupts((0,), 5, 1)


def test_refusals_merge_by_queue() -> None:
    """The first of each queue is told, and how many there were; nothing grows with their number."""
    outbox = Outbox()
    for at in range(1000):
        outbox.refuse(at % 2, at, write=at == 0)
    assert outbox.take() == Refused(0, 0, True, 500)
    assert outbox.take() == Refused(1, 1, False, 500)
    assert outbox.take() is None
