"""What the README and the pages of `docs/guide` show is what comes back: each block of each page is run and compared.

A page has one shell, one folder and one home of stacks; its blocks are run in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ports import take

from lamina_tools.guide.blocks import Block, blocks
from lamina_tools.guide.session import PORTS, Session, lacking, wants_root
from lamina_tools.tree import ROOT

PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/guide").glob("*.md")))
BLOCKS = [
    pytest.param(page, number, id=f"{Path(page).stem}-{number + 1}")
    for page in PAGES
    for number in range(len(blocks((ROOT / page).read_text())))
]


class Reader:
    """Somebody who types a page from its beginning."""

    def __init__(self, page: str, folder: Path) -> None:
        self.page = page
        self.blocks: tuple[Block, ...] = blocks((ROOT / page).read_text())
        self._session = Session(folder, take(PORTS), wants_root(self.blocks))
        self._done = 0

    def read(self, number: int) -> None:
        """Runs block `number`, and before it those of the page that have not been run."""
        while self._done <= number:
            block = self.blocks[self._done]
            self._done += 1
            if not lacking(block):
                self._session.check(block)

    def leave(self) -> None:
        """Stops what the page started."""
        self._session.close()


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    """The reader of the page that is read: one at a time, since two cores bear no nine stacks."""
    found: dict[str, Reader] = {}
    yield found
    for reader in found.values():
        reader.leave()


def reader_of(page: str, readers: dict[str, Reader], folders: pytest.TempPathFactory) -> Reader:
    """Returns the reader of a page; the one of another page leaves."""
    if page not in readers:
        for name in list(readers):
            readers.pop(name).leave()
        readers[page] = Reader(page, folders.mktemp("reader"))
    return readers[page]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("page", "number"), BLOCKS)
def test_a_page_says_what_happens(
    page: str, number: int, readers: dict[str, Reader], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The commands of a block end well and print what the page shows."""
    why = lacking(blocks((ROOT / page).read_text())[number])
    if why:
        pytest.skip(why)
    reader_of(page, readers, tmp_path_factory).read(number)
