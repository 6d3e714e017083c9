"""Watching a switch from the command line: captures in files and pipes, mirrors, records, counters, changes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc
from tests import pcapng_reader

from lamina_kit.rpc.channel import connect

PORTS = ("a", "b", "m")
FRAME = (b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x88\xb5hello").ljust(60, b"\0")


@pytest.fixture(scope="module")
def lan(up: Any) -> Iterator[Any]:
    """Returns the command with a switch that has ports a, b and m; in the end nothing of it is left."""
    asyncio.run(_make(target_of(up)))
    yield up
    asyncio.run(_unmake(target_of(up)))


def target_of(command: Any) -> str:
    """Returns where the vswitch layer of a stack is."""
    record = json.loads((command.home / "default" / "stack.json").read_text())
    return str(record["targets"]["vswitch"])


async def _make(target: str) -> None:
    channel = connect(target)
    switch = await rpc.SwitchesStub(channel).CreateSwitch(pb.CreateSwitchRequest(switch_id="lan"))
    for port in PORTS:
        await rpc.PortsStub(channel).CreatePort(pb.CreatePortRequest(parent=switch.name, port_id=port))
    await channel.close()


async def _unmake(target: str) -> None:
    channel = connect(target)
    name = f"hosts/{await _host(channel)}/switches/lan"
    await rpc.SwitchesStub(channel).DeleteSwitch(pb.DeleteSwitchRequest(name=name, force=True))
    await channel.close()


@pytest.fixture
def send(lan: Any) -> Callable[..., None]:
    """Returns what sends frames into port a, while b and m have somebody behind them."""
    return lambda *frames: asyncio.run(_send(target_of(lan), frames))


async def _send(target: str, frames: tuple[bytes, ...]) -> None:
    channel = connect(target)
    ports = rpc.PortsStub(channel)
    calls = []
    for name in PORTS:
        port = await ports.GetPort(pb.GetPortRequest(name=f"hosts/{await _host(channel)}/switches/lan/ports/{name}"))
        call: Any = ports.Attach()
        await call.write(pb.AttachRequest(open=pb.AttachOpen(handle=port.handle, completions=True)))
        await call.read()
        calls.append(call)
    await calls[0].write(pb.AttachRequest(frames=pb.FrameBatch(frames=frames)))
    async with asyncio.timeout(30):
        while not (await calls[0].read()).completion.frames:
            pass
    for call in calls:
        await call.done_writing()
        async with asyncio.timeout(30):
            while await call.read() is not grpc.aio.EOF:
                pass
    await channel.close()


async def _host(channel: Any) -> str:
    listed = await rpc.SwitchesStub(channel).ListSwitches(pb.ListSwitchesRequest())
    return str(listed.switches[0].name.split("/")[1])


def wait_for_header(process: Any) -> bytes:
    """Returns the first bytes that a live capture writes, which come before any frame."""
    head = os.read(process.stdout.fileno(), 1 << 16)
    assert head[:4] == b"\x0a\x0d\x0d\x0a"
    return head


def test_a_live_capture_flows_into_a_pipe_and_ends_with_its_count(lan: Any, send: Any) -> None:
    """The header comes before any frame, and after the last one the pipe ends with a whole file."""
    words = ("vswitch", "capture", "-w", "-", "--switch", "lan", "--drops", "-c", "3", "ether", "proto", "0x88b5")
    process = lan.start(*words)
    head = wait_for_header(process)
    send(FRAME, FRAME[:13], FRAME)
    rest, _ = process.communicate(timeout=60)
    found = pcapng_reader.read(head + rest)
    assert process.returncode == 0 and [packet.data for packet in found.packets] == [FRAME] * 3
    assert found.filters[0] == "ether proto 0x88b5" and found.blocks[-1] == "statistics"


def test_a_capture_into_a_file_ends_whole_at_a_time_and_at_ctrl_c(lan: Any, tmp_path: Any, eventually: Any) -> None:
    """Both ways the file reads to its end, the status is 0, and the summary names the file."""
    file = tmp_path / "one.pcapng"
    done = lan.run("vswitch", "capture", "--port", "lan/a", "-w", str(file), "--duration", "10ms")
    assert pcapng_reader.read(file.read_bytes()).blocks == ["section"]
    assert f"0 frames written to {file}, 0 lost" in done.stderr
    process = lan.start("vswitch", "capture", "--switch", "lan", "-w", "-")
    head = wait_for_header(process)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and pcapng_reader.read(head + rest).blocks == ["section"]


def test_a_capture_takes_its_place_as_other_verbs_do(lan: Any, send: Any, tmp_path: Any) -> None:
    """Switch, port and filter may be given in a row, and options between them; what is no switch is told."""
    for words in (("lan", "--direction", "in", "ether", "proto", "0x88b5"), ("lan/a", "greater", "60", "--drops")):
        file = tmp_path / "x.pcapng"
        process = lan.start("vswitch", "capture", *words[:1], "-w", "-", "-c", "1", *words[1:])
        head = wait_for_header(process)
        send(FRAME)
        file.write_bytes(head + process.communicate(timeout=60)[0])
        assert process.returncode == 0
        assert [packet.data for packet in pcapng_reader.read(file.read_bytes()).packets] == [FRAME]
    refused = lan.run("vswitch", "capture", "tcp", "port", "80", "-w", "-", expect=1).stderr
    assert "switches/tcp does not exist" in refused
    assert "PORT_UNKNOWN" in lan.run("vswitch", "capture", "lan", "--port", "z", "-w", "-", expect=1).stderr


def test_a_capture_ends_when_its_reader_goes(lan: Any) -> None:
    """Whoever reads the pipe may close it, as Wireshark does, also while no frame passes."""
    process = lan.start("vswitch", "capture", "--switch", "lan", "-w", "-")
    wait_for_header(process)
    process.stdout.close()
    assert process.wait(60) == 0


def test_a_capture_that_cannot_be_says_why(lan: Any, tmp_path: Any) -> None:
    """A bad filter is named with its position and leaves an older file alone; what is missing is told."""
    older = tmp_path / "older.pcapng"
    older.write_text("older")
    done = lan.run("vswitch", "capture", "--switch", "lan", "-w", str(older), "tcp", "prt", expect=1)
    assert "position 5" in done.stderr and "FILTER_MALFORMED" in done.stderr
    assert older.read_text() == "older" and "written" not in done.stderr
    assert "--switch" in lan.run("vswitch", "capture", "-w", "-", expect=1).stderr
    done = lan.run("vswitch", "capture", "--switch", "lan", "-w", "/nonexistent/file", expect=1)
    assert "FILE_REFUSED" in done.stderr


def test_mirrors_records_and_counters_have_tables_and_json(lan: Any, send: Any) -> None:
    """A mirror is made, copies and is deleted; records tell the rules; counters show ports, VLANs and drops."""
    name = lan.run("vswitch", "mirror", "lan", "tap", "--to", "m", "--port", "a", "--direction", "in").stdout.strip()
    send(FRAME, FRAME[:13])
    (mirror,) = lan.json("vswitch", "mirrors", "lan")
    assert (mirror["name"], mirror["copied_frames"]) == (name, "1")
    table = lan.run("vswitch", "mirrors", "lan").stdout.splitlines()
    assert table[1].split() == ["tap", "a", "ingress", "m", "no", "1", "-"]
    table = lan.run("vswitch", "records", "lan", "less", "13").stdout.splitlines()
    assert table[0].split()[:5] == ["TIME", "PORT", "BYTES", "VERDICT", "WHY"]
    assert table[1].split()[1:5] == ["a", "13", "dropped", "runt"]
    told = lan.run("vswitch", "records", "lan", "--port", "a", "--steps", "less", "13").stdout
    assert "output.drop_runt" in told
    by_port = lan.run("vswitch", "counters", "lan").stdout.splitlines()
    assert [row.split()[0] for row in by_port] == ["PORT", "a", "b", "m"] and "runt" in by_port[1]
    assert "dropped: runt" in lan.run("vswitch", "counters", "lan/a").stdout
    assert [row["vlan_id"] for row in lan.json("vswitch", "counters", "lan", "--vlans")] == [0]
    assert "SWITCH_MISSING" in lan.run("vswitch", "counters", "lan/a", "--vlans", expect=1).stderr
    assert lan.run("vswitch", "delete-mirror", "lan/tap").stdout.startswith("deleted ")


def test_a_frame_s_way_is_told_hop_by_hop(lan: Any) -> None:
    """Each hop has its object, its verdict and its rules; a frame that is not hexadecimal is refused."""
    told = lan.run("vswitch", "path", "lan/a", FRAME.hex()).stdout.splitlines()
    assert told[0].split()[0] == "0" and told[0].endswith("/switches/lan  dropped") and "STAGE" in told[1]
    assert "drop_link_down" in told[-1]
    assert "FRAME_MALFORMED" in lan.run("vswitch", "path", "lan/a", "xyz", expect=1).stderr
    words = ("--from", "02:00:00:00:00:01", "--arp", "10.0.0.1", "10.0.0.2")
    assert lan.run("vswitch", "path", "lan/a", *words).stdout.splitlines()[0] == told[0]


def test_watch_shows_what_is_so_and_then_changes(lan: Any) -> None:
    """With --once it ends after the ports; as JSON each change is a line of its own."""
    assert lan.run("vswitch", "watch", "lan", "--once").stdout.split()[:2] == ["a", "detached"]
    process = lan.start("vswitch", "watch", "lan", "-o", "json")
    states = [json.loads(process.stdout.readline())["port"]["state"] for _ in range(3)]
    assert states == ["STATE_DETACHED"] * 3
    lan.run("vswitch", "create-port", "lan", "z")
    assert json.loads(process.stdout.readline())["port"]["name"].endswith("/z")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
