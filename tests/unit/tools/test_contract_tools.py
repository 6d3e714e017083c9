"""From contracts to code, images and pages: on a small tree with one contract."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lamina_tools import contracts, documents, generate, rpc_reference
from lamina_tools.contracts import ContractsFailed
from lamina_tools.tree import ROOT

CONTRACT = """// Frames of one host.

syntax = "proto3";

package lamina.mmu.v1;

import "google/protobuf/timestamp.proto";

// Manages spaces.
service Spaces {
  // Returns one space. It has no side effects.
  //
  // Errors: NOT_FOUND `SPACE_UNKNOWN`.
  rpc GetSpace(GetSpaceRequest) returns (Space);

  // Watches spaces.
  rpc WatchSpaces(WatchSpacesRequest) returns (stream Space);
}

// Names a space.
message GetSpaceRequest {
  // Name, as `spaces/s | t`.
  string name = 1;
}

// Asks to watch.
message WatchSpacesRequest {}

// A space.
message Space {
  // What a space may be.
  enum State {
    // Not said.
    STATE_UNSPECIFIED = 0;
    // In use.
    STATE_ACTIVE = 1;
  }
  // State.
  State state = 1;
  // When it was made.
  google.protobuf.Timestamp create_time = 2;
  // Sizes in bytes.
  repeated int64 sizes_bytes = 3;
  // Limit, if there is one.
  optional int64 limit_bytes = 4;
  // Where it comes from.
  oneof origin {
    // Its parent.
    string parent = 5;
  }
}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns a tree with one contract and an empty index of decisions."""
    contract = tmp_path / "protos/lamina/mmu/v1/mmu.proto"
    contract.parent.mkdir(parents=True)
    contract.write_text(CONTRACT)
    (tmp_path / "docs/adr").mkdir(parents=True)
    (tmp_path / "docs/adr/README.md").write_text(f"# Decisions\n\n{documents.BEGIN}\n{documents.END}\n\nEnd.\n")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


def change(root: Path, old: str, new: str) -> None:
    """Replaces a piece of the contract's text."""
    path = root / "protos/lamina/mmu/v1/mmu.proto"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def package(root: Path) -> rpc_reference.Package:
    """Returns the tree's one package."""
    (found,) = rpc_reference.packages(contracts.image(root), set(contracts.proto_files(root)))
    return found


def test_what_is_written_is_up_to_date(root: Path) -> None:
    """After `gen` there is no drift, and a second `gen` changes nothing."""
    changed = generate.write(root)
    assert "wrote protos/gen/lamina/mmu/v1/mmu_pb2.py" in changed
    assert "wrote docs/rpc/mmu.v1.md" in changed
    assert generate.drift(root) == []
    assert generate.write(root) == []


def test_the_code_works_as_a_namespace_package(root: Path) -> None:
    """The generated code is importable without any `__init__.py`, and carries its types."""
    generate.write(root)
    folder = root / "protos/gen/lamina/mmu/v1"
    assert {path.name for path in folder.iterdir()} == {
        "mmu_pb2.py",
        "mmu_pb2.pyi",
        "mmu_pb2_grpc.py",
        "mmu_pb2_grpc.pyi",
        "py.typed",
    }
    assert not list((root / "protos/gen").rglob("__init__.py"))
    code = "from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc as g; print(mmu_pb2.Space.State.Name(1), g.SpacesStub)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'protos/gen'); {code}"],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("STATE_ACTIVE")


def test_drift_names_each_file(root: Path) -> None:
    """A changed contract, a file too many and a file too few are told apart."""
    generate.write(root)
    change(root, "STATE_ACTIVE = 1;", "STATE_ACTIVE = 1;\n    // Gone.\n    STATE_GONE = 2;")
    (root / "protos/gen/lamina/old_pb2.py").touch()
    (root / "docs/rpc.md").unlink()
    found = generate.drift(root)
    assert "docs/rpc.md: missing" in found
    assert "protos/gen/lamina/old_pb2.py: nothing generates it any more" in found
    assert "protos/gen/lamina/mmu/v1/mmu_pb2.py: out of date" in found
    assert "protos/lamina.binpb: out of date" in found


def test_stale_code_is_removed(root: Path) -> None:
    """`gen` removes the code of a contract that is gone."""
    generate.write(root)
    other = root / "protos/lamina/gone/v1/gone.proto"
    other.parent.mkdir(parents=True)
    other.write_text('syntax = "proto3";\npackage lamina.gone.v1;\n// Empty.\nmessage Gone {}\n')
    generate.write(root)
    other.unlink()
    assert "removed protos/gen/lamina/gone/v1/gone_pb2.py" in generate.write(root)
    assert generate.drift(root) == []


def test_a_comment_is_no_part_of_the_promise(root: Path) -> None:
    """The committed image does not change with a comment; the reference does."""
    generate.write(root)
    change(root, "// In use.", "// In use by somebody.")
    assert generate.drift(root) == [
        "docs/rpc/mmu.v1.md: out of date",
        "protos/gen/lamina/mmu/v1/mmu_pb2.pyi: out of date",
    ]


def test_a_contract_with_an_error_is_refused(root: Path) -> None:
    """What protoc says about a broken contract is passed on."""
    change(root, "returns (Space);", "returns (Spade);")
    with pytest.raises(ContractsFailed, match="Spade"):
        contracts.image(root)


def test_before_the_freeze_anything_goes(root: Path) -> None:
    """While no FROZEN exists, an incompatible change is no reason to refuse."""
    generate.write(root)
    change(root, "string name = 1;", "int64 name = 1;")
    assert generate.refusals(root, None) == []


def test_a_break_is_refused_once_frozen(root: Path) -> None:
    """With FROZEN, a changed type is refused and the finding names the field."""
    generate.write(root)
    (root / contracts.FROZEN).touch()
    change(root, "string name = 1;", "int64 name = 1;")
    (refusal,) = generate.refusals(root, None)
    assert "name" in refusal


def test_a_missing_image_is_no_way_around_the_freeze(root: Path) -> None:
    """With FROZEN, an image that was removed is not made anew from whatever the contracts say now."""
    generate.write(root)
    (root / contracts.FROZEN).touch()
    (root / contracts.IMAGE).unlink()
    change(root, "string name = 1;", "int64 name = 1;")
    (refusal,) = generate.refusals(root, "7")
    assert str(contracts.IMAGE) in refusal


def test_an_addition_is_welcome_when_frozen(root: Path) -> None:
    """With FROZEN, a new field is no break."""
    generate.write(root)
    (root / contracts.FROZEN).touch()
    change(root, "string name = 1;", "string name = 1;\n  // View.\n  int32 view = 2;")
    assert generate.refusals(root, None) == []


def test_a_break_is_found_though_imports_went(root: Path) -> None:
    """With FROZEN, the comparison works when the contract no longer imports what the image imports."""
    generate.write(root)
    (root / contracts.FROZEN).touch()
    change(root, 'import "google/protobuf/timestamp.proto";\n', "")
    change(root, "google.protobuf.Timestamp create_time", "int64 create_time")
    assert any("create_time" in refusal for refusal in generate.refusals(root, None))


@pytest.mark.parametrize(("accepted", "refused"), [("ADR-7", False), ("7", False), ("ADR-8", True), ("yes", True)])
def test_a_decision_allows_a_break(root: Path, accepted: str, refused: bool) -> None:
    """With FROZEN, a break goes through when the decision that is named exists."""
    generate.write(root)
    (root / contracts.FROZEN).touch()
    (root / "docs/adr/0007-names.md").write_text("# ADR 0007: Names are numbers\n")
    change(root, "string name = 1;", "int64 name = 1;")
    assert bool(generate.refusals(root, accepted)) is refused


def test_lint_finds_a_missing_comment(root: Path) -> None:
    """buf works on the image, without a registry of schemas, and looks at our contracts alone."""
    assert contracts.buf(root, "lint", contracts.image(root)) == []
    change(root, "  // State.\n", "")
    (finding,) = contracts.buf(root, "lint", contracts.image(root))
    assert "state" in finding
    assert finding.startswith("lamina/mmu/v1/mmu.proto:")


def test_the_reference_reads_comments_and_types(root: Path) -> None:
    """The reader keeps order, comments, labels, streams and nested names."""
    found = package(root)
    assert found.comments == ["Frames of one host."]
    get, watch = found.services[0].methods
    assert (get.request, get.response) == ("lamina.mmu.v1.GetSpaceRequest", "lamina.mmu.v1.Space")
    assert (get.response_streams, watch.response_streams) == (False, True)
    space = found.messages[2]
    assert [(field.name, field.type, field.label) for field in space.fields] == [
        ("state", "lamina.mmu.v1.Space.State", ""),
        ("create_time", "google.protobuf.Timestamp", ""),
        ("sizes_bytes", "int64", "repeated"),
        ("limit_bytes", "int64", "optional"),
        ("parent", "string", "one of origin"),
    ]
    assert found.enums[0].name == "Space.State"
    assert found.enums[0].values[1].comment == "In use."


def test_the_page_links_what_is_ours(root: Path) -> None:
    """On a page our types are links, others' are not, and a bar in a comment does not break a table."""
    page = rpc_reference.page(package(root))
    assert "**GetSpace**([GetSpaceRequest](#getspacerequest)) → [Space](#space)" in page
    assert "**WatchSpaces**([WatchSpacesRequest](#watchspacesrequest)) → stream [Space](#space)" in page
    assert "| `state` | [Space.State](#spacestate) | 1 | State. |" in page
    assert "| `create_time` | `google.protobuf.Timestamp` | 2 |" in page
    assert "`spaces/s \\| t`" in page


def test_the_index_has_a_line_a_call(root: Path) -> None:
    """The index names each call with its first sentence and leads to its heading."""
    index = rpc_reference.index([package(root)])
    assert "| [Spaces.GetSpace](rpc/mmu.v1.md#spacesgetspace) | Returns one space. |" in index


def test_the_index_of_decisions_reads_titles_and_states(root: Path) -> None:
    """The index of decisions takes number, title and state from the records, however the heading spells the number."""
    (root / "docs/adr/0001-a.md").write_text("# ADR 0001: Cores run contexts\n\nStatus: superseded by ADR 0002\n")
    (root / "docs/adr/0002-b.md").write_text("# 2. Frames are bytes\n\nText.\n")
    (root / "docs/adr/0003-c.md").write_text("# Time is an integer\n\n**Status:** proposed.\n")
    page = documents.adr_index(root)
    assert "| 0001 | [Cores run contexts](0001-a.md) | superseded by ADR 0002 |" in page
    assert "| 0002 | [Frames are bytes](0002-b.md) | accepted |" in page
    assert "| 0003 | [Time is an integer](0003-c.md) | proposed |" in page
    assert page.startswith("# Decisions\n")
    assert page.endswith("\nEnd.\n")


def test_an_index_without_its_marks_is_refused(root: Path) -> None:
    """Without the marks of the generated part, `gen` says so and does not overwrite the page."""
    (root / "docs/adr/README.md").write_text("# Decisions\n")
    with pytest.raises(ContractsFailed, match="lost the marks"):
        documents.adr_index(root)
