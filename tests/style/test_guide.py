"""The rules for the pages that lead people in: the README, the guide, and the table of figures."""

from __future__ import annotations

import re

import pytest

from lamina_tools import bench
from lamina_tools.guide.blocks import blocks
from lamina_tools.tree import ROOT

README_BYTES = 12 * 1024
GUIDE = ROOT / "docs/guide"
PAGES = sorted(path.name for path in GUIDE.glob("*.md"))


def test_the_readme_fits_a_hand() -> None:
    """The README has at most 12 KB: what is more is a page of the guide."""
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


def test_figures_name_their_measurements() -> None:
    """Every measurement that the table of figures names is in bench/, and every one in bench/ is named there."""
    named = set(re.findall(r"\./run bench (\w+)", (ROOT / "docs/performance.md").read_text())) - {"NAME"}
    assert sorted(named) == list(bench.available())


def test_figures_have_all_their_columns() -> None:
    """Each line of a table of figures says what, how much, against whom, with which aim and command, and when."""
    rows = [line for line in (ROOT / "docs/performance.md").read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    figures = [row for row in cells if row[0] != "what"]
    assert [row for row in figures if len(row) != 6 or not all(row)] == []
    assert [row for row in figures if not re.fullmatch(r"\d{4}-\d\d-\d\d", row[-1])] == []


def test_the_index_of_the_guide_has_every_page() -> None:
    """The guide's own page leads to all others."""
    index = (GUIDE / "README.md").read_text()
    assert [name for name in PAGES if name != "README.md" and f"]({name})" not in index] == []


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_the_guide_are_read_in_blocks(name: str) -> None:
    """Every console block of a page ends, and begins with a command."""
    assert all(block.steps for block in blocks((GUIDE / name).read_text()))


def test_ways_through_the_house_end_at_a_function() -> None:
    """Each question in the guide ends at a file, and at a function of it."""
    ways = re.findall(r"\[\w+\.py\]\(\.\./\.\./([^)]+)\), `(\w+)` \|", (GUIDE / "README.md").read_text())
    assert len(ways) == 3
    assert [way for way in ways if f"def {way[1]}(" not in (ROOT / way[0]).read_text()] == []
