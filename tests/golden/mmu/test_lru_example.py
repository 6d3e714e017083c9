"""The textbook's swap example, line by line: four frames hold A, B, C, D, and page E is needed (S-06)."""

from __future__ import annotations

from pathlib import Path

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.conftest import Golden
from tests.contract.mmu.stack import PAGE, WRITE, Stack

HERE = Path(__file__).parent
TABLES = 4
BASE = 0x40_0000
NAMES = "ABCDE"


class Example:
    """A process whose group has room for its page tables and four pages."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.lines: list[str] = []

    async def start(self) -> None:
        """Makes the group, the space and a mapping of five pages."""
        self.group = await self.stack.group("example", pages=TABLES + 4)
        self.space = await self.stack.space(self.group)
        await self.stack.map(self.space, BASE, 5)

    async def access(self, name: str, data: bytes = b"") -> None:
        """Reads or writes page `name`, as the program does, and says what was evicted for it."""
        address = BASE + NAMES.index(name) * PAGE
        before = len(self.stack.layer.events)
        if data:
            await self.stack.write(self.space, address, data)
        else:
            await self.stack.read(self.space, address, 1)
        self.lines.append(f"{'write' if data else 'read '} {name}")
        for entry in self.stack.layer.events.list(limit=1000)[before:]:
            if entry.event == "page.evicted" and "/pages/" in entry.object:
                inputs = dict(entry.inputs)
                victim = NAMES[(int(entry.object.rpartition("/")[2], 16) - BASE) // PAGE]
                self.lines.append(f"  evicted {victim}: age {inputs['age']}, {inputs['state']}, {inputs['action']}")
                self.lines.append(f"  rule {entry.rule}")

    async def look(self) -> None:
        """Says where each page is."""
        words = []
        for index, name in enumerate(NAMES):
            explained = await self.stack.translate(self.space, BASE + index * PAGE)
            place = {1: f"frame {explained.frame}", 2: f"swap {explained.swap_slot}", 3: "nowhere"}
            words.append(f"{name} {place[explained.residency]}")
        self.lines.append("  " + " · ".join(words))

    @property
    def text(self) -> str:
        """Returns all lines."""
        return "\n".join(self.lines) + "\n"


@pytest.mark.parametrize("story", ["written", "read"])
async def test_the_four_frame_example(tmp_path: Path, golden: Golden, story: str) -> None:
    """E evicts A: a dirty A is written to the swap area first, a clean A is dropped."""
    async with Stack(tmp_path) as stack:
        example = Example(stack)
        await example.start()
        for name in "ABCD":
            await example.access(name, name.encode() * 8 if story == "written" else b"")
        await example.look()
        await example.access("E", b"E" * 8)
        await example.look()
        if story == "written":
            assert await stack.read(example.space, BASE, 8) == b"A" * 8
        golden(example.text, HERE / "data" / f"lru_{story}.txt")


async def test_a_page_that_was_used_again_stays(tmp_path: Path, golden: Golden) -> None:
    """After E took A's place, B is used; when A is needed again, C goes: B was used since, C was not."""
    async with Stack(tmp_path) as stack:
        example = Example(stack)
        await example.start()
        for name in "ABCDE":
            await example.access(name, name.encode() * 8)
        await example.access("B")
        await example.access("A")
        await example.look()
        assert "evicted C" in example.text
        golden(example.text, HERE / "data" / "lru_again.txt")


async def test_the_steps_of_a_fault(tmp_path: Path, golden: Golden) -> None:
    """The seven steps of the document, as four kinds of fault record them."""
    async with Stack(tmp_path) as stack:
        space = await stack.space(label="example")
        await stack.map(space, 0x1234_5000, 1)
        lines: list[str] = []

        async def tell(title: str, space: pb.Space, address: int) -> None:
            answer = await stack.fault(space, address, WRITE)
            lines.append(f"{title}: {pb.FaultResponse.Outcome.Name(answer.outcome)}")
            lines.extend(f"  {step.step}: {step.detail}" for step in answer.steps)

        await tell("first touch", space, 0x1234_5678)
        await stack.write(space, 0x1234_5678, b"x")
        child = await stack.fork(space)
        await tell("shared", child, 0x1234_5678)
        await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=1))
        await tell("swapped out", space, 0x1234_5678)
        await tell("bad access", space, 0x1)
        assert len(lines) > 4 * 4
        golden("\n".join(lines) + "\n", HERE / "data" / "fault_steps.txt")
