"""Validation of requests and of resource names."""

from __future__ import annotations

import pytest

from lamina_kit.checks import Checks, shown
from lamina_kit.errors import InvalidArgument, NotFound
from lamina_kit.names import Pattern

SPACE = Pattern("hosts/{host}/spaces/{space}")


def test_all_wrong_fields_are_reported_together() -> None:
    """One error lists every violation, in the order of the checks."""
    with pytest.raises(InvalidArgument) as caught, Checks() as check:
        check.identifier("vm_id", "Bad_Name")
        check.range("size_bytes", 0, 1, 10)
        check.aligned("address", 0x1001, 4096)
        check.one_of("policy", "mru", ("lru", "clock"))
        check.max_bytes("data", b"12345", 4)
        check.that(False, "parent", "is empty")
        check.range("fine", 5, 1, 10)
    assert [violation.field for violation in caught.value.violations] == [
        "vm_id", "size_bytes", "address", "policy", "data", "parent",
    ]  # fmt: skip
    assert caught.value.reason == "REQUEST_INVALID"
    assert "size_bytes is 0, not within 1 to 10" in caught.value.message
    assert "lru, clock" in caught.value.message


def test_nothing_wrong_raises_nothing() -> None:
    """Checks that hold leave the block quietly, bounds included."""
    with Checks() as check:
        check.range("low", 1, 1, 10)
        check.range("high", 10, 1, 10)
        check.aligned("zero", 0, 4096)
        check.max_bytes("text", "äö", 4)
        check.identifier("name", "a" * 63)
        assert check.that(True, "x", "is wrong")
    assert check.violations == []


@pytest.mark.parametrize("name", ["", "A", "1a", "a-", "-a", "a" * 64, "a_b", "a b", "ä", "a\n", "a\0"])
def test_identifiers_are_strict(name: str) -> None:
    """What is no identifier is refused, a trailing newline too."""
    with pytest.raises(InvalidArgument), Checks() as check:
        check.identifier("name", name)


def test_an_error_inside_the_block_goes_on() -> None:
    """The block's own exception is not replaced by violations."""
    with pytest.raises(NotFound), Checks() as check:
        check.that(False, "a", "is wrong")
        raise NotFound("x", reason="GONE")


def test_a_layer_may_give_its_own_reason() -> None:
    """The reason of the error is the caller's choice."""
    with pytest.raises(InvalidArgument) as caught, Checks("VM_INVALID") as check:
        check.that(False, "a", "is wrong")
    assert caught.value.reason == "VM_INVALID"


def test_huge_values_are_not_repeated() -> None:
    """A message shows the start of a value and its length."""
    assert len(shown("x" * 10_000_000)) < 150
    assert "10000002 characters" in shown("x" * 10_000_000)


def test_names_are_formatted_and_parsed() -> None:
    """A name holds its ids, in the pattern's order."""
    name = SPACE.format(space="s-1", host="h1")
    assert name == "hosts/h1/spaces/s-1"
    assert SPACE.parse(name) == {"host": "h1", "space": "s-1"}
    assert SPACE.matches(name) and not SPACE.matches("hosts/h1")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "hosts/h1",
        "hosts//spaces/s",
        "hosts/h1/spaces/s/",
        "/hosts/h1/spaces/s",
        "hosts/../spaces/s",
        "hosts/h1/spaces/S",
        "hosts/h1/spaces/s\n",
        "hosts/h1/vms/s",
        "hosts/h1/spaces/" + "s" * 128,
        "x" * 1_000_000,
    ],
)
def test_a_name_of_another_kind_is_refused(name: str) -> None:
    """A malformed name names the pattern and the field."""
    with pytest.raises(InvalidArgument) as caught:
        SPACE.parse(name, "space")
    error = caught.value
    assert error.reason == "NAME_MALFORMED" and error.violations[0].field == "space"
    assert "hosts/{host}/spaces/{space}" in error.message and len(error.message) < 300


def test_an_id_that_no_name_may_hold_is_refused() -> None:
    """Formatting checks ids as parsing does."""
    with pytest.raises(InvalidArgument) as caught:
        SPACE.format(host="../etc", space="s")
    assert caught.value.violations[0].field == "host"


def test_formatting_with_other_ids_is_a_defect() -> None:
    """Missing and surplus ids are a KeyError: the caller is wrong, not the request."""
    with pytest.raises(KeyError):
        SPACE.format(host="h1")
    with pytest.raises(KeyError):
        SPACE.format(host="h1", space="s", more="m")


@pytest.mark.parametrize("pattern", ["", "hosts/{Host}", "hosts/{}/x", "hosts//x", "{a}{b}"])
def test_a_malformed_pattern_fails_at_import(pattern: str) -> None:
    """A pattern is checked when it is made."""
    with pytest.raises(ValueError, match="pattern"):
        Pattern(pattern)
