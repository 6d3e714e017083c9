"""Captures through the service: whole files, filters, drops, limits, slow readers, and how a stream ends."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import captures_pb2 as pb
from lamina.vswitch.v1 import captures_pb2_grpc as rpc
from lamina.vswitch.v1 import vswitch_pb2
from tests import pcapng_reader
from tests.integration.vswitch.refusals import refusal

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6
SWITCH = "hosts/h1/switches/s1"
PORTS = f"{SWITCH}/ports"


def frame(dst: bytes, src: bytes, text: str = "") -> bytes:
    """Return a frame of the least length."""
    return (dst + src + b"\x88\xb5" + text.encode()).ljust(60, b"\0")


class Reader:
    """Reads a capture; what it got is a file at every moment."""

    def __init__(self, running: Any, **options: Any) -> None:
        request = pb.CaptureFramesRequest(**{"switch": SWITCH, **options})
        self.call = rpc.CapturesStub(running.channel).CaptureFrames(request)
        self.data = b""
        self.frames = self.lost = 0

    async def more(self) -> bool:
        """Read the next message; False at the end."""
        async with asyncio.timeout(10):
            message: Any = await self.call.read()
        if message is grpc.aio.EOF:
            return False
        assert len(message.data) <= 256 << 10
        self.data += message.data
        self.frames += message.frames
        self.lost = message.lost_frames
        return True

    async def packets(self, count: int) -> list[pcapng_reader.Packet]:
        """Read until there are so many frames, and return them."""
        while self.frames < count:
            assert await self.more(), "the capture has ended"
        return self.file().packets

    async def rest(self) -> pcapng_reader.File:
        """Read to the end."""
        while await self.more():
            pass
        return self.file()

    def file(self) -> pcapng_reader.File:
        """Return what was read."""
        found = pcapng_reader.read(self.data)
        assert len(found.packets) == self.frames
        return found


@pytest.fixture
async def lan(start: Any, device: Any) -> Any:
    """Returns a running service with devices at ports a and b of s1."""
    running = await start()
    await running.switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id="s1"))
    devices = []
    for name in ("a", "b"):
        port = await running.ports.CreatePort(vswitch_pb2.CreatePortRequest(parent=SWITCH, port_id=name))
        devices.append(await device(running.ports, port.handle).plug_in())
    return running, *devices


async def test_a_capture_is_a_file_from_its_first_message(lan: Any, manual_clock: Any) -> None:
    """The header comes at once; then each frame once where it enters and once a copy, with direction and time."""
    running, a, b = lan
    reader = Reader(running)
    assert await reader.more() and reader.file().blocks == ["section"]
    assert reader.file().application == "lamina vswitch capture"
    await manual_clock.advance(1_234_567_890)
    a.send([frame(BROADCAST, A, "one"), frame(BROADCAST, A, "two")])
    found = await reader.packets(4)
    now_ns = manual_clock.now_ns()
    assert [(p.interface, p.direction, p.data, p.time_ns, p.comments) for p in found] == [
        (f"{PORTS}/a", 1, frame(BROADCAST, A, "one"), now_ns, []),
        (f"{PORTS}/a", 1, frame(BROADCAST, A, "two"), now_ns, []),
        (f"{PORTS}/b", 2, frame(BROADCAST, A, "one"), now_ns, []),
        (f"{PORTS}/b", 2, frame(BROADCAST, A, "two"), now_ns, []),
    ]
    b.send([frame(A, B)])
    assert [(p.interface[-1], p.direction) for p in (await reader.packets(6))[4:]] == [("b", 1), ("a", 2)]
    reader.call.cancel()


async def test_drops_are_captured_when_asked_for_with_their_reason(lan: Any) -> None:
    """Without drops only what passes is in the file; with them each has a comment; alone nothing else is."""
    running, a, _ = lan
    plain = Reader(running, frame_limit=1)
    with_drops = Reader(running, drops=True, frame_limit=3)
    only = Reader(running, only_drops=True, frame_limit=1)
    for reader in (plain, with_drops, only):
        await reader.more()
    a.send([b"\x02" * 13, frame(BROADCAST, A)])
    files = [await reader.rest() for reader in (plain, with_drops, only)]
    told = [[(p.length, p.direction, p.comments) for p in found.packets] for found in files]
    passed: tuple[int, int, list[str]] = (60, 1, [])
    dropped = (13, 1, ["drop: RUNT"])
    assert told[0] == [passed] and told[2] == [dropped]
    assert sorted(told[1]) == sorted([passed, (60, 2, []), dropped])


async def test_ports_direction_filter_and_snap_choose(lan: Any) -> None:
    """A capture sees the ports and the direction that it names, what the filter passes, and the first bytes only."""
    running, a, b = lan
    at_b = Reader(running, ports=[f"{PORTS}/b"], direction=pb.DIRECTION_EGRESS, snap_bytes=64, frame_limit=1)
    filtered = Reader(running, filter="ether src 02:00:00:00:00:02", frame_limit=2)
    for reader in (at_b, filtered):
        await reader.more()
    a.send([frame(BROADCAST, A) + bytes(100)])
    b.send([frame(BROADCAST, B)])
    found = await at_b.rest()
    assert [(p.interface, p.direction, len(p.data), p.length) for p in found.packets] == [(f"{PORTS}/b", 2, 64, 160)]
    assert found.snap_bytes == [64]
    found = await filtered.rest()
    assert [p.data[6:12] for p in found.packets] == [B, B]
    assert set(found.filters) == {"ether src 02:00:00:00:00:02"}


async def test_limits_end_a_capture_with_statistics(lan: Any, manual_clock: Any) -> None:
    """A count and a time end the stream with OK, and the last blocks count what came by at each port."""
    running, a, _ = lan
    by_count, by_time = Reader(running, frame_limit=3), Reader(running, duration_ns=10**9, filter="less 60")
    for reader in (by_count, by_time):
        await reader.more()
    a.send([frame(BROADCAST, A), frame(BROADCAST, A) + b"!"])
    found = await by_count.rest()
    assert found.blocks[-2:] == ["statistics"] * 2 and len(found.packets) == 3
    assert [(s.interface[-1], s.received, s.accepted, s.delivered, s.dropped) for s in found.statistics] == [
        ("a", 2, 2, 2, 0),
        ("b", 1, 1, 1, 0),
    ]
    await manual_clock.advance(10**9)
    found = await by_time.rest()
    assert [(s.interface[-1], s.received, s.accepted) for s in found.statistics] == [("a", 2, 1), ("b", 2, 1)]
    assert found.statistics[0].end_ns == manual_clock.now_ns()
    assert by_count.call.done() and (await by_count.call.code()) is grpc.StatusCode.OK


async def test_two_runs_give_the_same_bytes(start: Any, device: Any, tmp_path: Any) -> None:
    """On a clock that is not the machine's, the same frames give the same file."""
    files = []
    for turn in range(2):
        start.state_dir = tmp_path / str(turn)
        running = await start()
        await running.switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id="s1"))
        port = await running.ports.CreatePort(vswitch_pb2.CreatePortRequest(parent=SWITCH, port_id="a"))
        reader = Reader(running, drops=True, frame_limit=1)
        await reader.more()
        (await device(running.ports, port.handle).plug_in()).send([frame(BROADCAST, A)])
        await reader.rest()
        files.append(reader.data)
    assert files[0] == files[1] and b"drop: NO_DESTINATION" in files[0]


async def test_what_a_capture_cannot_be_is_refused(lan: Any) -> None:
    """Unknown names, numbers out of range, other switches' ports and bad filters each have their reason."""
    running, *_ = lan
    wrong: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({"switch": "s1"}, ("INVALID_ARGUMENT", "NAME_MALFORMED")),
        ({"switch": "hosts/h1/switches/s2"}, ("NOT_FOUND", "SWITCH_UNKNOWN")),
        ({"ports": [f"{PORTS}/zz"]}, ("NOT_FOUND", "PORT_UNKNOWN")),
        ({"ports": ["hosts/h1/switches/s2/ports/a"]}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"ports": [f"{PORTS}/a"] * 257}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"snap_bytes": 63}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"frame_limit": -1}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"frame_limit": 10**12 + 1}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"duration_ns": -1}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"buffer_bytes": 65535}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"direction": 7}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"filter": "tcp port"}, ("INVALID_ARGUMENT", "FILTER_MALFORMED")),
    ]
    for options, expected in wrong:
        request = pb.CaptureFramesRequest(**{"switch": SWITCH, **options})
        assert await refusal(rpc.CapturesStub(running.channel).CaptureFrames(request).read()) == expected, options


async def test_the_65th_capture_is_refused_until_another_ends(lan: Any, eventually: Any) -> None:
    """64 captures run at a time; one that its reader leaves makes room."""
    running, *_ = lan
    readers = [Reader(running) for _ in range(64)]
    for reader in readers:
        await reader.more()
    assert await refusal(Reader(running).more()) == ("RESOURCE_EXHAUSTED", "CAPTURE_LIMIT")
    readers[0].call.cancel()
    captures = running.service._watchers.captures
    await eventually(lambda: len(captures._running) == 63, "the capture is gone")
    assert await Reader(running).more()
    for reader in readers:
        reader.call.cancel()


async def test_nobody_watches_when_the_last_reader_is_gone(lan: Any, eventually: Any) -> None:
    """The engine has an observer while a capture runs, and none before and after."""
    running, *_ = lan
    engine = running.service._catalog.engine
    assert engine.observer is None
    reader = Reader(running)
    await reader.more()
    assert engine.observer is not None
    reader.call.cancel()
    await eventually(lambda: engine.observer is None, "the engine tells nobody")


async def test_a_capture_ends_with_its_switch_and_with_the_service(lan: Any) -> None:
    """What was captured until then comes with its statistics, then the error."""
    running, a, b = lan
    reader = Reader(running)
    await reader.more()
    a.send([frame(BROADCAST, A)])
    await b.receive(1)
    delete = vswitch_pb2.DeleteSwitchRequest(name=SWITCH, force=True)
    await running.switches.DeleteSwitch(delete)
    assert await refusal(reader.rest()) == ("ABORTED", "SWITCH_DELETED")
    assert len(reader.file().packets) == 2 and len(reader.file().statistics) == 2
    await running.switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id="s1"))
    reader = Reader(running)
    await reader.more()
    running.service._watchers.stop()
    assert await refusal(reader.rest()) == ("UNAVAILABLE", "SERVICE_STOPPING")
