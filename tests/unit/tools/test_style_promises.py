"""The rules that hold contracts, code and pages of a layer together."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_tools import planned_table, systems_table
from lamina_tools.rpc_reference import Method, Package, Service
from lamina_tools.style import pages, promises
from lamina_tools.style.source import Source
from lamina_tools.tree import Layer

README = """# MMU
## The concept
Frames.
## Files in reading order
| `domain/walk.py` | walks |
| `server.py` | serves |
## Try it
grpcurl -plaintext localhost:50052 lamina.mmu.v1.Spaces/ListSpaces
grpcurl -plaintext localhost:50052 lamina.mmu.v1.Frames/ListFrames
grpcurl -plaintext localhost:50052 lamina.mmu.v1.Groups/ListGroups
"""


def package(comment: str) -> Package:
    """Returns a package with one service of two RPCs, the first with a comment."""
    methods = (
        Method("GetSpace", comment, "A", "B", False, False),
        Method("ListSpaces", "Lists. Errors: none.", "A", "B", False, False),
    )
    return Package("lamina.mmu.v1", services=[Service("Spaces", "Spaces.", methods)])


def server(text: str) -> Source:
    """Returns a server module."""
    return Source(Path("services/mmu/lamina_mmu/server.py"), text)


@pytest.mark.parametrize("comment", ["Errors: NOT_FOUND `X`.", "It cannot fail.", "Errors: as `WriteSpace`."])
def test_an_rpc_that_says_how_it_fails_is_fine(comment: str) -> None:
    """An RPC may name a code, say that there is none, or refer to another RPC."""
    assert list(promises.rpcs_say_how_they_fail([package(comment)])) == []


def test_an_rpc_that_says_nothing_of_failure_is_found() -> None:
    """An RPC whose comment names no code of failure is found."""
    (finding,) = promises.rpcs_say_how_they_fail([package("Returns a space.")])
    assert finding.startswith("lamina.mmu.v1.Spaces.GetSpace ")


def test_an_rpc_that_nobody_defines_is_found() -> None:
    """An RPC that the servicer does not define is found; inherited and assigned ones count."""
    partial = server("class S(mmu_pb2_grpc.SpacesServicer):\n    async def GetSpace(self): ...\n")
    (finding,) = promises.contract_is_served(package(""), [partial])
    assert "ListSpaces" in finding
    inherited = server(
        "class Reads:\n    ListSpaces = f\n"
        "class SpacesServicer(Reads, mmu_pb2_grpc.SpacesServicer):\n    async def GetSpace(self): ...\n"
    )
    assert list(promises.contract_is_served(package(""), [inherited])) == []


def test_a_service_that_nobody_serves_is_found() -> None:
    """A service without a servicer is found, RPC by RPC."""
    first, second = promises.contract_is_served(package(""), [])
    assert first == "lamina.mmu.v1.Spaces.GetSpace: no servicer defines it, and it is not marked as planned"
    assert "Spaces.ListSpaces" in second


def test_a_planned_rpc_needs_no_servicer_and_may_have_none() -> None:
    """An RPC that is marked as planned is right without a servicer, and wrong with one, who would never be asked."""
    planned = Method("GetSpace", "", "A", "B", False, False, planned="S-01")
    coming = Package("lamina.mmu.v1", services=[Service("Spaces", "Spaces.", (planned,))])
    assert list(promises.contract_is_served(coming, [])) == []
    defined = server("class S(mmu_pb2_grpc.SpacesServicer):\n    async def GetSpace(self): ...\n")
    (finding,) = promises.contract_is_served(coming, [defined])
    assert "marked as planned" in finding


def test_a_reason_that_nobody_promised_is_found() -> None:
    """A reason must be named by a contract or README, unless it tells of a defect of ours."""
    source = server(
        "raise errors.NotFound('x', reason='SPACE_UNKNOWN')\n"
        "raise errors.NotFound('x', reason='SPACE_LOST')\n"
        "raise errors.Internal('x', reason='TABLE_BROKEN')\n"
    )
    (finding,) = promises.reasons_are_promised(["// Errors: NOT_FOUND `SPACE_UNKNOWN`."], [source])
    assert ":2: the reason SPACE_LOST" in finding


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Returns a tree with one layer of two modules and a README that is right."""
    package_folder = tmp_path / "services/mmu/lamina_mmu"
    (package_folder / "domain").mkdir(parents=True)
    for path in ("__init__.py", "server.py", "domain/__init__.py", "domain/walk.py"):
        (package_folder / path).touch()
    (tmp_path / "services/mmu/README.md").write_text(README)
    return tmp_path


def test_a_readme_with_its_parts_is_fine(tree: Path) -> None:
    """A README with concept, files and three calls is right."""
    assert pages.layer_readme(tree, Layer("mmu")) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("## The concept", "## Frames", "no heading 'The concept'"),
        ("## Files in reading order", "## Rest", "no heading 'Files"),
        ("| `server.py` | serves |\n", "", "passes over lamina_mmu/server.py"),
        ("domain/walk.py", "domain/walker.py", "names `domain/walker.py`, which does not exist"),
        ("grpcurl -plaintext localhost:50052 lamina.mmu.v1.Groups/ListGroups\n", "", "2 grpcurl calls"),
    ],
)
def test_a_readme_that_lacks_a_part_is_found(tree: Path, old: str, new: str, found: str) -> None:
    """Each missing part of a README, and each file that it gets wrong, is found."""
    path = tree / "services/mmu/README.md"
    path.write_text(README.replace(old, new))
    assert any(found in finding for finding in pages.layer_readme(tree, Layer("mmu")))


def test_a_missing_readme_is_found(tree: Path) -> None:
    """A layer without a README is found."""
    assert pages.layer_readme(tree, Layer("vswitch")) == ["services/vswitch/README.md: missing"]


def test_dead_links_are_found(tree: Path) -> None:
    """A link to a file that is not there is found; links elsewhere and code are left alone."""
    text = "[a](services/mmu/README.md#x)\n[b](gone.md)\n[c](https://example.com)\n```\n[d](gone.md)\n```\n[e](#here)\n`[f](g)`\n"
    assert list(pages.links_lead_somewhere(tree, Source(Path("page.md"), text))) == [
        "page.md:2: links to gone.md, which does not exist"
    ]


def row(state: str, calls: str) -> systems_table.Row:
    """Returns a row of the table of systems."""
    return systems_table.Row("S-01", "x", state, calls, "", "", "")


def test_what_waits_and_what_stands_are_compared() -> None:
    """A system that is not there has calls that wait for it, one that is has calls that are served, and all exist."""
    served = Method("GetSpace", "", "A", "B", False, False)
    waiting = Method("GetPolicy", "", "A", "B", False, False, planned="S-01 S-99")
    both = [Package("lamina.mmu.v1", services=[Service("Spaces", "", (served, waiting))])]
    alone = [Package("lamina.mmu.v1", services=[Service("Spaces", "", (served,))])]

    def found(packages: list[Package], state: str, calls: str) -> list[str]:
        return list(planned_table.disagreements(packages, [row(state, calls)]))

    assert found(both, "part", "`mmu Spaces.GetSpace`") == [
        "lamina.mmu.v1.Spaces.GetPolicy waits for 'S-99', which is no system"
    ]
    assert found(alone, "stands", "`mmu Spaces.GetSpace`") == []
    assert found(alone, "open", "") == ["S-01 is open, but no call of the contracts waits for it"]
    assert found(alone, "stands", "") == ["S-01 is stands, but names no call of its contract"]
    assert found(alone, "stands", "`mmu Spaces.Gone`") == ["S-01 names mmu Spaces.Gone, which is in no contract"]
    assert "not served yet" in found(both, "part", "`mmu Spaces.GetPolicy`")[1]


def systems(tree: Path, first: str) -> list[str]:
    """Returns what is wrong with a table that is right but for its first row."""
    rows = [first, *(f"| {number} | x | open | | | | |" for number in systems_table.NUMBERS[1:])]
    (tree / "docs").mkdir(exist_ok=True)
    (tree / "docs/systems.md").write_text("\n".join(rows))
    return systems_table.findings(tree)


def test_the_table_of_systems_is_compared_with_the_tree(tree: Path) -> None:
    """A row that stands names code, tests and a command, and what it names exists."""
    code = "`services/mmu/lamina_mmu/server.py`"
    assert systems(tree, f"| S-01 | x | stands | | {code} | {code} | `lamina mmu` |") == []
    assert systems(tree, "| S-01 | x | done | | | | |")[0].startswith("docs/systems.md: S-01 has the state 'done'")
    assert systems(tree, f"| S-01 | x | part | | `gone.py` | {code} | `x` |") == [
        "docs/systems.md: S-01 names gone.py, which does not exist"
    ]
    assert len(systems(tree, "| S-01 | x | stands | | | | |")) == 3
    assert systems(tree, "| S-02 | x | open | | | | |") == [
        "docs/systems.md: no row for S-01",
        "docs/systems.md: a second row for S-02",
    ]
