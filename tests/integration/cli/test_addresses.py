"""Commands that are told where a layer is, instead of the name of a stack."""

from __future__ import annotations

from typing import Any


def test_a_command_calls_a_layer_where_it_is_told(up: Any) -> None:
    """With --at a command needs no record of a stack; it shows what the same layer shows through the stack."""
    record = up.json("status")
    address = next(row["address"] for row in record["layers"] if row["layer"] == "mmu")
    elsewhere = type(up)(up.home / "nowhere")
    assert "STACK_NOT_UP" in elsewhere.run("mmu", "groups", expect=1).stderr
    assert elsewhere.json("mmu", "groups", "--at", f"mmu={address}") == up.json("mmu", "groups")
    assert "ROOT" in elsewhere.run("mmu", "group", "root", "--at", f"mmu={address}").stdout


def test_addresses_are_checked(up: Any) -> None:
    """An unknown layer, an address that is none, a layer without an address and one that is not there are told."""
    for word, reason in {
        "mmmu=127.0.0.1:1": "ADDRESS_MALFORMED",
        "mmu": "ADDRESS_MALFORMED",
        "mmu=nowhere": "ADDRESS_INVALID",
        "hardware=127.0.0.1:1": "LAYER_ADDRESS_MISSING",
        "mmu=127.0.0.1:1": "LAYER_MISSING",
    }.items():
        assert reason in up.run("mmu", "groups", "--at", word, expect=1).stderr, word
