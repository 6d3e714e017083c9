"""Grants and revocations in the order of the stream."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_hypervisor.domain.memory.addresses import Frame, Gpa
from lamina_hypervisor.domain.memory.ept import Ept
from lamina_hypervisor.domain.memory.hold import Granted, Holder
from lamina_kit.errors import Internal


@pytest.fixture
def holder(world: Any) -> Holder:
    """A hold whose table has no frame but its root."""
    return Holder(Ept(world.ram, Frame(1)))


def grant(gpa: int, frame: int) -> Granted:
    """Returns a grant with all rights."""
    return Granted(1, Gpa(gpa), Frame(frame), True, True)


def test_a_grant_without_tables_waits_for_them(holder: Holder) -> None:
    """A grant is installed when the tables that it needs have come."""
    assert not holder.granted(1, grant(0x1000, 9))
    assert holder.tables_lacking() == 3
    assert holder.settle([Frame(2), Frame(3), Frame(4)]) == 1
    assert holder.ept.translate(Gpa(0x1000)) == 0x9000
    assert holder.tables_lacking() == 0


def test_a_grant_older_than_a_revocation_is_void(holder: Holder) -> None:
    """A grant that waits when its page is revoked is never installed: its frame may be somebody else's by now."""
    holder.granted(1, grant(0x1000, 9))
    assert holder.revoked(2, [Gpa(0x1000)], write_only=False) == ()
    assert holder.settle([Frame(2), Frame(3), Frame(4)]) == 0
    assert holder.ept.mapped == 0
    assert holder.voided == 1


def test_a_grant_behind_the_revocation_holds(holder: Holder) -> None:
    """The same page granted again after its revocation is installed with the new frame."""
    holder.granted(1, grant(0x1000, 9))
    holder.revoked(2, [Gpa(0x1000)], write_only=False)
    holder.granted(3, grant(0x1000, 10))
    holder.settle([Frame(2), Frame(3), Frame(4)])
    assert holder.ept.translate(Gpa(0x1000)) == 0xA000


def test_a_gap_in_the_stream_is_a_defect(holder: Holder) -> None:
    """A lost message could have been a revocation: the hold goes no further."""
    holder.passed(1)
    with pytest.raises(Internal) as caught:
        holder.granted(3, grant(0x1000, 9))
    assert caught.value.reason == "HOLD_OUT_OF_ORDER"


def test_revocations_answer_for_pages_that_were_held_only(holder: Holder) -> None:
    """Pages of a revocation that were never granted have no bits to return."""
    holder.ept.add_tables([Frame(2), Frame(3), Frame(4)])
    holder.granted(1, grant(0x2000, 9))
    bits = holder.revoked(2, [Gpa(0x3000), Gpa(0x2000)], write_only=False)
    assert [page.gpa for page in bits] == [0x2000]
