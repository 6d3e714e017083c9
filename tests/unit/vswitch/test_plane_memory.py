"""Memory of the plane: where rows begin."""

from __future__ import annotations

import mmap

import pytest

from lamina_vswitch.plane import memory
from lamina_vswitch.plane.compiled import mac_table
from lamina_vswitch.plane.flat_fdb import FlatFdb


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (64, 4), (1 << 15, 4), (1 << 17, 4)])
def test_rows_begin_at_cache_lines_and_are_zero(rows: int, columns: int) -> None:
    """Small and large tables alike begin at a line, hold what was asked for, and can be written."""
    table = memory.words(rows, columns)
    assert table.shape == (rows, columns)
    assert table.ctypes.data % memory.LINE == 0
    assert not table.any()
    table[-1, -1] = 7
    assert table.sum() == 7


def test_a_kernel_without_huge_pages_gives_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that was built without huge pages refuses to hear of them, and the table is there all the same."""
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 12345)  # as unknown as to such a kernel
    table = memory.words(1 << 17, 4)
    assert table.shape == (1 << 17, 4) and not table.any()


def test_no_record_lies_across_two_lines() -> None:
    """However often a table grows, it begins at a line, and at most a quarter of it is taken."""
    fdb = FlatFdb(100, 5000, 1)
    for number in range(5000):
        fdb.learn(1, b"\x02\0" + number.to_bytes(4, "big"), 1, 0)
        assert fdb._numbers[mac_table.TABLE >> 3] % memory.LINE == 0
        assert len(fdb._table) >= mac_table.EMPTIEST * (number + 1)
