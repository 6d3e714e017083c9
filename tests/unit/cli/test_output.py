"""Tables, JSON, errors and numbers as people and programs read them."""

from __future__ import annotations

import io
import json

import pytest
from lamina.mmu.v1 import mmu_pb2

from lamina_cli.output import printing
from lamina_kit.errors import InvalidArgument, Violation


def test_table_columns_are_as_wide_as_their_widest_cell() -> None:
    """A table aligns its columns and leaves no blanks at the ends of lines."""
    out = io.StringIO()
    printing.table(("NAME", "N"), [("a", 1), ("longer-name", 22)], out=out)
    assert out.getvalue() == "NAME         N\na            1\nlonger-name  22\n"


def test_table_without_rows_prints_its_headers() -> None:
    """An empty table is still a table."""
    out = io.StringIO()
    printing.table(("NAME", "N"), [], out=out)
    assert out.getvalue() == "NAME  N\n"


def test_json_prints_every_field_of_a_message() -> None:
    """A field with its default value is in the JSON form, under the contract's own name."""
    out = io.StringIO()
    printing.as_json(mmu_pb2.Group(name="hosts/h1/memoryGroups/a"), out=out)
    plain = json.loads(out.getvalue())
    assert plain["name"] == "hosts/h1/memoryGroups/a"
    assert plain["usage_bytes"] == "0"


def test_json_of_a_list_is_a_list() -> None:
    """A list of messages prints as a JSON array in their order."""
    out = io.StringIO()
    printing.as_json([mmu_pb2.Group(name="b"), mmu_pb2.Group(name="a")], out=out)
    assert [item["name"] for item in json.loads(out.getvalue())] == ["b", "a"]


def test_error_names_reason_fields_and_next_step() -> None:
    """An error prints what is wrong, each bad field, and what to do."""
    out = io.StringIO()
    problem = InvalidArgument(
        "the request is wrong", reason="BAD", violations=[Violation("size", "must be positive")], next_step="fix it"
    )
    printing.error(problem, out=out)
    said = InvalidArgument("it is wrong: size is -1.", reason="BAD", violations=[Violation("size", "is -1")])
    printing.error(said, out=(short := io.StringIO()))
    assert short.getvalue().splitlines() == ["error: it is wrong: size is -1. (INVALID_ARGUMENT BAD)"]
    assert out.getvalue().splitlines() == [
        "error: the request is wrong (INVALID_ARGUMENT BAD)",
        "  size: must be positive",
        "next: fix it",
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (4096, "4 KiB"), (1536 << 10, "1.5 MiB"), (8 << 30, "8 GiB"), (1 << 40, "1 TiB")]
)
def test_sizes_are_binary(count: int, text: str) -> None:
    """Sizes print in binary units with at most one decimal."""
    assert printing.size(count) == text


@pytest.mark.parametrize(("ns", "text"), [(5, "5 ns"), (1500, "1.5 µs"), (2_000_000, "2.0 ms"), (3 * 10**9, "3.0 s")])
def test_durations_have_one_decimal(ns: int, text: str) -> None:
    """Durations print in the largest unit that fits."""
    assert printing.duration(ns) == text
