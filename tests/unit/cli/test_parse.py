"""What people type."""

from __future__ import annotations

import argparse

import pytest

from lamina_cli.input import parse


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64M", 64 << 20), ("8GiB", 8 << 30), ("1 k", 1024), ("2tib", 2 << 40)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    """A whole number with a binary unit is a size."""
    assert parse.size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5G", "8 gallons", "0x10", "9" * 30, "9999999TiB"])
def test_other_words_are_no_sizes(text: str) -> None:
    """What is not a size is refused by name."""
    with pytest.raises(argparse.ArgumentTypeError, match="size"):
        parse.size(text)


@pytest.mark.parametrize(("text", "address"), [("0x1000", 0x1000), ("4096", 4096), ("0xffffffffffffffff", 2**64 - 1)])
def test_addresses_are_read(text: str, address: int) -> None:
    """Hexadecimal and decimal addresses of 64 bits are read."""
    assert parse.address(text) == address


@pytest.mark.parametrize("text", ["-1", "0x10000000000000000", "here"])
def test_other_words_are_no_addresses(text: str) -> None:
    """What is no address of 64 bits is refused."""
    with pytest.raises(argparse.ArgumentTypeError):
        parse.address(text)


@pytest.mark.parametrize("text", ["99999999999", "-99999999999", "1e3", "", "two"])
def test_numbers_fit_their_fields(text: str) -> None:
    """What does not fit a 32-bit field of a contract is refused before it is sent."""
    with pytest.raises(argparse.ArgumentTypeError):
        parse.INT32(text)


def test_whole_numbers_are_read() -> None:
    """Both ends of the range are in it."""
    assert [parse.whole(1, 16)(text) for text in ("1", "16")] == [1, 16]
