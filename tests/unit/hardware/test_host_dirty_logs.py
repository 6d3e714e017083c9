"""Dirty logs over a bus made of a set: which marks are taken, when cores forget, and who sees what."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_hardware.dirty_logs import HostDirtyLogs
from lamina_hardware.domain.dirty_logs import MAX_LOGS, PIECE_FRAMES, DirtyLogs, Piece
from lamina_kit.errors import FailedPrecondition, ResourceExhausted

AT_ONCE = 1 << 20


class Host:
    """A bus with marks, cores that forget, and what engines share."""

    def __init__(self) -> None:
        self.marked: set[int] = set()
        self.taken: list[tuple[int, int]] = []
        self.forgotten = 0
        self.keeps: list[bool] = []
        parts: Any = self
        self.logs = HostDirtyLogs(parts, self.forget, parts)

    def collect_dirty(self, first: int, count: int) -> list[int]:
        """Takes marks off."""
        self.taken.append((first, count))
        found = sorted(frame for frame in self.marked if first <= frame < first + count)
        self.marked.difference_update(found)
        return found

    def collect_writes(self, *, keep: bool) -> None:
        """Notes whether engines are to go on keeping what they write."""
        self.keeps.append(keep)

    async def forget(self) -> int:
        """Counts."""
        self.forgotten += 1
        return 0


def frames(pieces: list[Piece]) -> list[int]:
    """Returns the frames of pieces."""
    found = []
    for piece in pieces:
        bits = int.from_bytes(piece.bitmap, "little")
        dirty = [piece.first + bit for bit in range(len(piece.bitmap) * 8) if bits >> bit & 1]
        assert piece.dirty == len(dirty)
        found += dirty
    return found


async def test_a_log_sees_what_was_written_since_it_began() -> None:
    """Marks from before are not in it; what is read once is gone when it is cleared, and stays when it is not."""
    host = Host()
    host.marked = {10, 12}
    log = await host.logs.start([(10, 4)], "me", "")
    assert (frames(await host.logs.read(log.handle, clear=False)), host.forgotten) == ([], 1)
    host.marked = {9, 10, 13, 14}
    assert frames(await host.logs.read(log.handle, clear=False)) == [10, 13]
    assert host.forgotten == 1, "cores forget only when marks are to be seen anew"
    assert frames(await host.logs.read(log.handle, clear=True)) == [10, 13]
    assert host.forgotten == 2
    assert frames(await host.logs.read(log.handle, clear=True)) == []
    assert host.marked == {9, 14}, "marks outside its ranges are not touched"


async def test_marks_are_taken_in_pieces() -> None:
    """Exactly the frames of the ranges are asked for, at most a million at a time."""
    host = Host()
    await host.logs.start([(5, 3), (AT_ONCE, 2 * AT_ONCE + 7)], "me", "")
    assert host.taken == [(5, 3), (AT_ONCE, AT_ONCE), (2 * AT_ONCE, AT_ONCE), (3 * AT_ONCE, 7)]


async def test_logs_that_overlap_take_nothing_from_one_another() -> None:
    """What one log reads the other still has; a request id starts one log."""
    host = Host()
    one, two = await host.logs.start([(0, 8)], "me", "r"), await host.logs.start([(4, 8)], "you", "s")
    assert await host.logs.start([(0, 8)], "me", "r") is one
    host.marked = {3, 5, 9}
    assert frames(await host.logs.read(one.handle, clear=True)) == [3, 5]
    assert frames(await host.logs.read(two.handle, clear=True)) == [5, 9]
    assert (host.logs.count_owned("me"), host.logs.count_owned("you"), host.logs.count_owned("")) == (1, 1, 0)


async def test_logs_end() -> None:
    """One that is stopped, or whose owner is gone, is stale; engines keep what they write while any log is left."""
    host = Host()
    made = [await host.logs.start([(0, 8)], owner, "") for owner in ("me", "you", "you")]
    host.logs.stop(made[1].handle)
    assert host.keeps == [True, True, True, True]
    with pytest.raises(FailedPrecondition):
        await host.logs.read(made[1].handle, clear=False)
    host.logs.free_owned("you")
    assert (host.logs.count_owned("you"), host.logs.count_owned("me"), host.keeps[-1]) == (0, 1, True)
    host.logs.stop(made[0].handle)
    assert host.keeps[-1] is False
    again = await host.logs.start([(0, 8)], "me", "")
    assert again not in made
    host.logs.free_owned("me")
    assert host.keeps[-1] is False


def test_a_log_of_several_ranges() -> None:
    """Pieces come in the order of frames, none is empty, and the last of a range is as long as its rest."""
    logs = DirtyLogs()
    log = logs.start([(100, PIECE_FRAMES + 9), (1_000_000, 3)], "me")
    assert log.frames == PIECE_FRAMES + 12
    logs.note([1_000_002, 99, 100 + PIECE_FRAMES + 8, 100 + PIECE_FRAMES + 9, 999_999, 1_000_003, 100, 0])
    found = log.read(clear=False)
    assert frames(found) == [100, 100 + PIECE_FRAMES + 8, 1_000_002]
    assert [(piece.first, len(piece.bitmap)) for piece in found] == [
        (100, PIECE_FRAMES // 8), (100 + PIECE_FRAMES, 2), (1_000_000, 1),
    ]  # fmt: skip
    assert log.read(clear=True) == found
    assert log.read(clear=False) == []


def test_logs_are_bounded() -> None:
    """64 logs are kept; one that ends makes room."""
    logs = DirtyLogs()
    made = [logs.start([(0, 1)], "me") for _ in range(MAX_LOGS)]
    with pytest.raises(ResourceExhausted):
        logs.start([(0, 1)], "me")
    logs.stop(made[3])
    assert logs.start([(0, 1)], "me") in logs.entries()
