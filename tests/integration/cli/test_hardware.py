"""`lamina hardware` against a stack that runs."""

from __future__ import annotations

from typing import Any


def test_costs_are_listed_with_their_sources(up: Any) -> None:
    """Every event has its cycles and a source, by name, as a table and as JSON."""
    costs = up.json("hardware", "costs")
    assert [cost["event"] for cost in costs] == sorted(cost["event"] for cost in costs)
    assert all(cost["source"] for cost in costs)
    assert "walk.reference" in up.run("hardware", "costs").stdout


def test_a_wire_is_made_joined_left_and_deleted(up: Any) -> None:
    """Short names are those of the host; what a wire is and who is on it shows in the list."""
    made = up.run("hardware", "create-wire", "w1", "--rate", "1000000000", "--delay", "20us").stdout.strip()
    assert made.endswith("/wires/w1")
    up.run("hardware", "create-wire", "w2", "--udp", "127.0.0.1:0", "127.0.0.1:9")
    assert up.run("hardware", "connect", "nic0", "w1").stdout.endswith("/nics/nic0 is on w1\n")
    refused = up.run("hardware", "connect", "nic0", "w2", expect=1)
    assert "NIC_CONNECTED" in refused.stderr
    header, first, second = up.run("hardware", "wires").stdout.splitlines()
    assert header.split()[:4] == ["WIRE", "MEDIUM", "RATE", "DELAY"]
    assert first.split() == ["w1", "fabric", "1,000,000,000", "bit/s", "20.0", "µs", "-", "no", "nic0", "0", "0"]
    assert second.split()[:2] == ["w2", "udp"]
    assert up.run("hardware", "disconnect", "nic0").stdout.endswith("/nics/nic0 is on no wire\n")
    for wire in ("w1", "w2"):
        assert up.run("hardware", "delete-wire", wire).stdout.endswith(f"/wires/{wire}\n")
    assert up.json("hardware", "wires") == []
