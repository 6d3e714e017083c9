"""Backends from the command line: plugging in, what people and programs read of it, unplugging."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EMPTY_CAPTURE = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")


@pytest.fixture(scope="module")
def lan(up: Any) -> Iterator[Any]:
    """Returns the command with a switch and two ports; in the end nothing of it is left."""
    up.run("vswitch", "create-switch", "plugs")
    for port in ("a", "b"):
        up.run("vswitch", "create-port", "plugs", port)
    yield up
    for port in ("a", "b"):
        up.run("vswitch", "delete-port", f"plugs/{port}")
    up.run("vswitch", "delete-switch", "plugs")


async def test_a_socket_is_plugged_in_and_out(lan: Any, eventually: Any) -> None:
    """The answer names the address, a frame that is sent there is counted, and the table shows both."""
    made = lan.run("vswitch", "plug", "plugs/a", "datagram", "udp:127.0.0.1:0").stdout.split()
    assert made[0].endswith("/ports/a/backend")
    (found,) = lan.json("vswitch", "backends", "plugs")
    assert (found["datagram"]["local_address"], found["state"]) == (made[1], "STATE_OPEN")
    table = lan.run("vswitch", "backends", "plugs").stdout.splitlines()
    assert table[1].split() == ["a", "datagram", made[1], "open", "-"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"runt", ("127.0.0.1", int(made[1].rpartition(":")[2])))
    await eventually(lambda: "runt" in lan.run("vswitch", "counters", "plugs/a").stdout, "the runt was counted")
    lan.run("vswitch", "unplug", "plugs/a")
    assert lan.json("vswitch", "backends", "plugs") == []


async def test_files_are_played_and_written(lan: Any, tmp_path: Path, eventually: Any) -> None:
    """A capture is played to its end; what is none is refused with its reason."""
    (tmp_path / "in.pcap").write_bytes(EMPTY_CAPTURE)
    (tmp_path / "picture").write_bytes(b"GIF89a, and no capture")
    output = tmp_path / "out.pcapng"
    files = ("--input", str(tmp_path / "in.pcap"), "--output", str(output))
    lan.run("vswitch", "plug", "plugs/b", "file", *files)
    await eventually(lambda: "ended" in lan.run("vswitch", "backends", "plugs").stdout, "the file has ended")
    assert output.read_bytes()[:4] == bytes.fromhex("0a0d0d0a")
    lan.run("vswitch", "unplug", "plugs/b")
    refused = lan.run("vswitch", "plug", "plugs/b", "file", "--input", str(tmp_path / "picture"), expect=1)
    assert "neither pcap nor pcapng" in refused.stderr


def test_files_without_a_file_are_refused(lan: Any) -> None:
    """Nothing would come in, and what leaves would be lost: the error says what to give, and nothing is plugged in."""
    refused = lan.here("vswitch", "plug", "plugs/b", "file", "--original-timing", expect=1).stderr
    assert "FILE_MISSING" in refused and "--input FILE" in refused
    assert lan.here("vswitch", "backends", "plugs", "-o", "json").stdout.strip() == "[]"
