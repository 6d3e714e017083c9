"""What an IOMMU keeps: translations by size, and page requests until they are answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lamina_hardware.domain.iommu.iotlb import Iotlb, Kept
from lamina_hardware.domain.iommu.page_requests import MAX_IN_MESSAGE, PageRequests
from lamina_kit.errors import FailedPrecondition

PAGE, LARGE = 4096, 2 << 20


def page(at: int, level: int = 1, readable: bool = True, writable: bool = True, dirty: bool = True) -> Kept:
    """Returns a translation."""
    return Kept(at, level, PAGE if level == 1 else LARGE, readable, writable, dirty)


def test_a_translation_serves_what_it_allows() -> None:
    """Reads need a readable page, writes a writable one that is dirty already; outside of it there is none."""
    tlb = Iotlb()
    tlb.keep(3 * PAGE + 5, page(0x9000))
    for iova, found in ((3 * PAGE, True), (4 * PAGE - 1, True), (3 * PAGE - 1, False), (4 * PAGE, False)):
        assert (tlb.find(iova, False) is not None) is found
    for kept, read, write in (
        (page(0, writable=False), True, False), (page(0, dirty=False), True, False),
        (page(0, readable=False), False, True),
    ):  # fmt: skip
        tlb.keep(0, kept)
        assert (tlb.find(0, False) is not None, tlb.find(0, True) is not None) == (read, write)


def test_pages_of_both_sizes() -> None:
    """A large page serves all of it; one of the same place and size is replaced, one of another size is not."""
    tlb = Iotlb()
    tlb.keep(LARGE + PAGE, page(0x20_0000, 2))
    found = tlb.find(2 * LARGE - 1, True)
    assert found is not None and found.page == 0x20_0000
    assert tlb.find(2 * LARGE, True) is None
    tlb.keep(LARGE, page(0x40_0000, 2))
    tlb.keep(LARGE, page(0x1000))
    assert len(tlb) == 2
    assert tlb.clear() == 2
    assert (len(tlb), tlb.find(LARGE, False)) == (0, None)


def test_what_is_dropped() -> None:
    """All that translates a byte of the range, and nothing beside it."""
    tlb = Iotlb()

    def fill() -> None:
        tlb.clear()
        for n in range(4):
            tlb.keep(n * PAGE, page(n * PAGE))
        tlb.keep(LARGE, page(0, 2))

    for start, end, dropped in (
        (PAGE, 2 * PAGE, 1), (PAGE - 1, PAGE + 1, 2), (0, LARGE, 4), (0, LARGE + 1, 5), (2 * LARGE, 3 * LARGE, 0),
        (2 * LARGE - 1, 2 * LARGE, 1), (4 * PAGE, LARGE, 0),
    ):  # fmt: skip
        fill()
        assert tlb.drop(start, end) == dropped
        assert len(tlb) == 5 - dropped
        assert sum(tlb.find(iova, False) is not None for iova in (0, PAGE, 2 * PAGE, 3 * PAGE, LARGE)) == 5 - dropped


def test_the_one_that_was_not_used_goes_first() -> None:
    """A full IOTLB forgets the translation whose last use is the longest ago."""
    tlb = Iotlb(3)
    for n in range(3):
        tlb.keep(n * PAGE, page(0))
    assert tlb.find(0, False) is not None
    tlb.keep(3 * PAGE, page(0))
    assert [tlb.find(n * PAGE, False) is not None for n in range(4)] == [True, False, True, True]


class Timer(SimpleNamespace):
    """A deadline that notes whether it was taken back."""

    gone = False

    def cancel(self) -> None:
        """Takes it back."""
        self.gone = True


def requests() -> tuple[PageRequests, list[Any]]:
    """Returns page requests, and a list that grows when there is something to send."""
    made = PageRequests()
    changes: list[Any] = []
    made.changed = lambda: changes.append(None)
    return made, changes


def test_a_request_is_sent_once_and_wakes_all_who_wait() -> None:
    """Its answer ends it: waiters go on, its deadline is taken back, and what became of it is told once."""
    made, changes = requests()
    place = ("d", 0x1000, True)
    request = made.ask(place)
    woken: list[str] = []
    request.timer = timer = Timer()
    request.waiters += [lambda: woken.append("a"), lambda: woken.append("b")]
    assert (made.find(place), len(changes)) == (request, 1)
    assert (made.take(), made.take()) == ([request], [])
    made.answer(request.sequence, True)
    assert (woken, timer.gone, made.find(place)) == (["a", "b"], True, None)
    assert (made.take_resolved(place), made.take_resolved(place)) == (True, None)
    made.answer(request.sequence, False)
    assert made.take_resolved(place) is None, "late answers change nothing"
    for sequence in (0, -1, 2):
        with pytest.raises(FailedPrecondition):
            made.answer(sequence, True)


def test_requests_are_sent_in_messages() -> None:
    """At most 1024 in one, the oldest first; those that are over are not sent."""
    made, _ = requests()
    asked = [made.ask(("d", n * PAGE, False)) for n in range(MAX_IN_MESSAGE + 3)]
    made.resolve(asked[0])
    assert made.take() == asked[1 : MAX_IN_MESSAGE + 1]
    assert made.take() == asked[MAX_IN_MESSAGE + 1 :]
    assert made.take_resolved(asked[0].place) is False


def test_requests_of_a_device_end_with_it() -> None:
    """Those of one device, or all; what was resolved of them is forgotten, that of others is not."""
    made, _ = requests()
    asked = [made.ask((device, n * PAGE, False)) for device in ("d", "e") for n in range(2)]
    made.resolve(asked[0], True)
    made.resolve(asked[2], True)
    made.resolve_all("d")
    assert [made.find(request.place) is request for request in asked] == [False, False, False, True]
    assert [made.take_resolved(request.place) for request in asked] == [None, None, True, None]
    made.resolve_all()
    assert made.find(asked[3].place) is None
    assert made.take_resolved(asked[3].place) is None
