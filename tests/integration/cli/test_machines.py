"""Virtual machines through the command line."""

from __future__ import annotations

from typing import Any

import pytest

TRIES = 100


def until_console(lamina: Any, wanted: str) -> str:
    """Returns the serial output of `web` once it has `wanted` in it."""
    for _ in range(TRIES):
        text: str = lamina.run("hypervisor", "console", "web").stdout
        if wanted in text:
            return text
    raise AssertionError(f"{wanted!r} is not in {text!r}")


def test_a_machine_lives_through_its_commands(up: Any) -> None:
    """create, start, console, send, translate, exits, pause, resume, stop and delete do what they say."""
    up.run("hypervisor", "create", "web", "--memory", "16M")
    assert up.json("hypervisor", "start", "web")["state"] == "STATE_RUNNING"
    until_console(up, "> ")
    up.run("hypervisor", "send", "web", "echo from the outside")
    until_console(up, "from the outside")
    assert "GVA 0x1000 → GPA 0x5000" in up.run("hypervisor", "translate", "web", "0x1000").stdout
    ledger = up.json("hypervisor", "exits", "web")
    bytes_out = next(row["count"] for row in ledger["rows"] if row["qualifier"] == "out 0x3f8 thr")
    assert bytes_out == ledger["serial_output_bytes"] != "0"
    assert up.json("hypervisor", "pause", "web")["state"] == "STATE_PAUSED"
    assert up.json("hypervisor", "resume", "web")["state"] == "STATE_RUNNING"
    assert up.json("hypervisor", "stop", "web")["state"] == "STATE_STOPPED"
    up.run("hypervisor", "delete", "web")
    assert up.json("hypervisor", "list") == []


@pytest.mark.parametrize("words", [("--kernel", "/nowhere/kernel"), ("--kernel", "pyproject.toml")])
def test_a_kernel_that_is_none_is_refused(up: Any, words: tuple[str, str]) -> None:
    """A file that cannot be read, or is no ELF, ends with a reason, and no machine is left."""
    assert "error:" in up.run("hypervisor", "create", "bad", *words, expect=1).stderr
    assert up.json("hypervisor", "list") == []
