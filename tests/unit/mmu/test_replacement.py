"""What policies are told of frames: by number or by frame, when a page comes, goes, moves, is taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.policies.lru import Lru
from lamina_mmu.domain.policies.replacement import UNNUMBERED, Replacement
from lamina_mmu.domain.policy import EVERY, Policy


class Told(Policy):
    """Takes the first page that came in, and keeps what it was told."""

    name: ClassVar[str] = "told"

    def begin(self) -> None:
        """Starts with no news."""
        self.news: list[tuple[str, int]] = []

    def brought_in(self, page: int) -> None:
        """Keeps it."""
        super().brought_in(page)
        self.news.append(("in", page))

    def accessed(self, page: int) -> None:
        """Keeps it."""
        self.news.append(("accessed", page))

    def written(self, page: int) -> None:
        """Keeps it."""
        self.news.append(("written", page))

    def left(self, page: int) -> None:
        """Keeps it."""
        super().left(page)
        self.news.append(("left", page))

    def restored(self, page: int) -> None:
        """Keeps it."""
        self.pages[page] = None
        self.pages.move_to_end(page, last=False)
        self.news.append(("restored", page))

    def resize(self, capacity: int) -> None:
        """Keeps it."""
        super().resize(capacity)
        self.news.append(("resize", capacity))

    def standing(self, page: int) -> str:
        """Returns its page."""
        return f"page {page}"


class Remembering(Told):
    """One that knows pages by number."""

    name: ClassVar[str] = "remembering"
    remembers: ClassVar[bool] = True


def replacement(kind: type[Policy] = Told, number: Callable[[int], int] = lambda frame: 1000 + frame) -> Any:
    """Returns the policies over 32 frames of anonymous memory."""
    return Replacement([Use.ANONYMOUS] * 32, lambda group: kind(32), number)


def test_a_policy_that_remembers_hears_of_a_page_when_it_has_a_number() -> None:
    """A page that came and went before anybody asked is never told; its number is free."""
    both = replacement(Remembering)
    both.add(5, 0)
    both.add(6, 0)
    policy = both.policy(0)
    assert policy.news == [] and both.population((0,)) == 2
    both.remove(5)
    assert policy.news == [] and both.population((0,)) == 1
    assert list(both.order(0)) == [6] and policy.news == [("in", 1006)]
    assert (both.frame_of(1006), both.frame_of(1005), both.frame_of(0)) == (6, 0, 0)
    both.remove(6)
    assert policy.news[1:] == [("left", 1006)] and both.frame_of(1006) == 0
    both.remove(6)
    both.remove(31)
    assert len(policy.news) == 2, "what it does not know is passed over"


def test_accesses_and_writes_reach_the_policy_by_its_own_numbers() -> None:
    """The first look at a new page counts as its arrival; what is leaving, or unknown, is not told."""
    for kind, page in ((Told, 5), (Remembering, 1005)):
        both = replacement(kind)
        both.add(5, 0)
        both.accessed(5)
        both.accessed(5)
        both.written(5)
        assert both.policy(0).news == [("in", page), ("accessed", page), ("written", page)]
        assert both.standing(5) == f"page {page}"
        both.evict(0, EVERY)
        both.accessed(5)
        both.written(5)
        both.written(9)
        assert both.policy(0).news[3:] == [("left", page)]


def test_two_pages_of_one_number_are_two_pages() -> None:
    """A number that is taken, or none, is replaced by one that nobody else has."""
    both = replacement(Remembering, lambda frame: 7 if frame < 20 else 0)
    for frame in (3, 4, 21):
        both.add(frame, 0)
    both.tell(0)
    assert both.policy(0).news == [("in", 7), ("in", UNNUMBERED + 1), ("in", UNNUMBERED + 2)]
    assert [both.frame_of(page) for _, page in both.policy(0).news] == [3, 4, 21]


def test_what_is_leaving_may_stay_or_go() -> None:
    """A page that is taken back is where it was; one that went frees its number; neither is chosen twice."""
    for kind, base in ((Told, 0), (Remembering, 1000)):
        both = replacement(kind)
        for frame in (3, 4):
            both.add(frame, 0)
        chosen = both.evict(0, EVERY)
        assert (chosen.frame, chosen.policy, chosen.age) == (3, kind.name, 1) and both.leaving == {3: 0}
        assert not both.knows(3) and both.knows(4) and both.population((0,)) == 1
        both.restored(3)
        both.restored(4)
        assert both.leaving == {} and list(both.order(0)) == [3, 4] and both.knows(3)
        assert both.policy(0).news[-1] == ("restored", base + 3)
        assert both.evict(0, lambda frame: frame != 3).frame == 4
        both.remove(4)
        assert both.leaving == {} and both.frame_of(base + 4) == 0 and both.policy(0).news[-1] == ("left", base + 4)
        assert both.evict(0, lambda frame: False) is None


def test_a_policy_changes_while_a_page_is_leaving() -> None:
    """The new policy gets the pages by their arrival; one that was on its way out is its own when it is taken back."""
    kinds: list[type[Policy]] = [Told]
    both = Replacement([Use.ANONYMOUS] * 32, lambda group: kinds[0](32), lambda frame: 1000 + frame)
    for frame in (5, 3, 4):
        both.add(frame, 0)
    both.accessed(5)
    both.accessed(5)
    both.evict(0, lambda frame: frame == 3)
    kinds[0] = Remembering
    both.change(0)
    assert list(both.order(0)) == [5, 4]
    both.restored(3)
    policy: Any = both.policy(0)
    assert policy.news == [("in", 1005), ("in", 1004), ("restored", 1003)] and both.frame_of(1003) == 3
    kinds[0] = Lru
    both.change(0)
    assert list(both.order(0)) == [5, 3, 4] and both.frame_of(1003) == 0
    both.change(9)
    assert both.population((9,)) == 0


def test_a_page_that_moves_keeps_its_age() -> None:
    """The policy sees it go and come; how long ago it was accessed, and when it arrived, stay."""
    both = replacement()
    both.add(3, 0)
    both.add(4, 0)
    both.moved(3, 9)
    assert both.policy(0).news[-2:] == [("left", 3), ("in", 9)]
    assert (both.age(9), both.knows(3)) == (2, False) and both.oldest_first([4, 9, 3]) == [9, 4]
    both.change(0)
    assert list(both.order(0)) == [9, 4], "by arrival"
    both.moved(20, 21)
    assert not both.knows(21)


def test_pages_that_are_advised_to_be_cold_go_first() -> None:
    """Until they are accessed; an unknown frame is not cold."""
    both = replacement()
    for frame in (3, 4, 5):
        both.add(frame, 0)
    for frame in (5, 4, 9):
        both.cool(frame)
    assert list(both.order(0)) == [5, 4, 3]
    both.accessed(5)
    assert list(both.order(0)) == [4, 3, 5]
    gone = both.evict(0, EVERY)
    assert (gone.frame, gone.reason) == (4, "advice said that it is cold") and both.evict(0, EVERY).frame == 3


def test_of_several_groups_the_oldest_access_is_first() -> None:
    """Each keeps its order; heads are compared by their accesses; a group that is gone has none."""
    both = replacement()
    for frame, group in ((3, 1), (4, 2), (5, 1), (6, 2)):
        both.add(frame, group)
    assert list(both.candidates((1, 2))) == [3, 4, 5, 6] and list(both.candidates((2, 7))) == [4, 6]
    both.accessed(3)
    assert list(both.candidates((1, 2))) == [4, 6, 3, 5] and both.population((1, 2, 7)) == 4
    both.forget_group(1)
    assert both.population((1,)) == 0


def test_groups_with_both_kinds_of_pages_are_mixed() -> None:
    """Anonymous pages alone are not, nor pages of objects alone; counts fall as pages go."""
    uses = [Use.ANONYMOUS] * 8 + [Use.OBJECT] * 8
    both = Replacement(uses, lambda group: Lru(16), lambda frame: frame)
    both.add(3, 0)
    assert not both.is_mixed(0)
    both.add(9, 0)
    assert both.is_mixed(0)
    both.remove(3)
    assert not both.is_mixed(0)
    both.add(4, 0)
    both.remove(9)
    assert not both.is_mixed(0)


def test_a_policy_learns_its_size_when_it_changes() -> None:
    """The same size is no news; a group without a policy has nobody to tell."""
    both = replacement()
    policy = both.policy(0)
    both.resize(0, 32)
    both.resize(0, 7)
    both.resize(5, 7)
    assert policy.news == [("resize", 7)] and policy.capacity == 7
