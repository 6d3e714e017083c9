"""Backends that play capture files, and write them, on either clock."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import backends_pb2
from tests.integration.vswitch.plugging import ENDED, FAILED, plug, state, until_state
from tests.integration.vswitch.ring_device import make_ports
from tests.integration.vswitch.test_attach import BROADCAST, A, B, frame, reason_of

from lamina_vswitch.domain.backend.capture_reader import CaptureReader

SECOND_NS = 1_000_000_000


def pcap(path: Path, frames: list[tuple[int, bytes]], missing: int = 0) -> str:
    """Write a capture file of (seconds, frame) without its last `missing` bytes."""
    head = struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    records = [struct.pack("<IIII", second, 0, len(data), len(data)) + data for second, data in frames]
    whole = head + b"".join(records)
    path.write_bytes(whole[: len(whole) - missing])
    return str(path)


class Full:
    """A file that takes the first bytes of what is written, then no more."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: memoryview) -> int:
        """Write what there is room for."""
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._room, taken = 0, data[: self._room]
        return int(self._file.write(taken))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def test_a_file_is_played_as_fast_as_it_goes(start: Any, device: Any, tmp_path: Path) -> None:
    """All its frames enter the switch in order, whatever their times are; then the backend has ended."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    b = await device(running.ports, ports[1].handle, queue_frames=65536).plug_in()
    frames = [frame(BROADCAST, A, str(number)) + bytes(1000) for number in range(500)]
    path = pcap(tmp_path / "in.pcap", [(number % 7, each) for number, each in enumerate(frames)])
    await plug(running, ports[0], file=backends_pb2.FileBackend(input_path=path))
    assert await b.receive(500) == frames
    await until_state(running, ports[0], ENDED)


async def test_a_file_keeps_its_time(start: Any, device: Any, manual_clock: Any, tmp_path: Path) -> None:
    """With `original_timing` a frame comes when the stack's clock is as far from the first as its stamp."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    b = await device(running.ports, ports[1].handle).plug_in()
    frames = [frame(BROADCAST, A, str(number)) for number in range(4)]
    path = pcap(tmp_path / "in.pcap", [(100, frames[0]), (100, frames[1]), (103, frames[2]), (101, frames[3])])
    await plug(running, ports[0], file=backends_pb2.FileBackend(input_path=path, original_timing=True))
    assert await b.receive(2) == frames[:2]
    await manual_clock.advance(3 * SECOND_NS - 1)
    engine = running.service._catalog.engine
    assert engine.counters(ports[0].handle.id).received_frames == 2
    await manual_clock.advance(1)
    assert await b.receive(2) == frames[2:]
    await until_state(running, ports[0], ENDED)


async def test_what_leaves_is_written(start: Any, device: Any, manual_clock: Any, tmp_path: Path) -> None:
    """Frames to the port are in the output with the stack's time; a restart adds to it and plays nothing twice."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    path = pcap(tmp_path / "in.pcap", [(1, frame(BROADCAST, A))])
    output = tmp_path / "out.pcapng"
    output.write_bytes(b"something older")
    file = backends_pb2.FileBackend(input_path=path, output_path=str(output))
    await plug(running, ports[0], file=file)
    await until_state(running, ports[0], ENDED)
    expected = []
    for turn in range(2):
        b = await device(running.ports, ports[1].handle, completions=True).plug_in()
        await manual_clock.advance(5)
        b.send([frame(BROADCAST, B, str(turn))])
        await b.next()
        expected.append((5 * (turn + 1), frame(BROADCAST, B, str(turn))))
        await running.stop()
        start.running.clear()
        assert CaptureReader().feed(output.read_bytes()) == expected
        running = await start()
        assert (await state(running, ports[0])).state == ENDED
        assert running.service._catalog.engine.counters(ports[0].handle.id).received_frames == 0


async def test_what_is_no_capture_is_refused(start: Any, tmp_path: Path) -> None:
    """A file of something else is refused at once; one that breaks off fails where it does, and the port lives on."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    (tmp_path / "picture").write_bytes(b"GIF89a" + bytes(100))
    refused = plug(running, ports[0], file=backends_pb2.FileBackend(input_path=str(tmp_path / "picture")))
    assert await reason_of(refused) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    path = pcap(tmp_path / "cut.pcap", [(1, frame(BROADCAST, A))] * 2, missing=1)
    await plug(running, ports[0], file=backends_pb2.FileBackend(input_path=path))
    found = await until_state(running, ports[0], FAILED)
    assert "ends in the middle of what begins at byte 100" in found.state_detail
    assert running.service._catalog.engine.counters(ports[0].handle.id).received_frames == 1


@pytest.mark.parametrize("path", ["/", "/dev/null/x"])
async def test_an_output_that_cannot_be_written(start: Any, path: str) -> None:
    """A folder, or a place where no file can be, is refused."""
    running = await start()
    (port,) = await make_ports(running, "a")
    refused = plug(running, port, file=backends_pb2.FileBackend(output_path=path))
    assert await reason_of(refused) == (grpc.StatusCode.NOT_FOUND, "DEVICE_UNKNOWN")


async def test_an_output_that_becomes_full_ends_both(start: Any, device: Any, tmp_path: Path) -> None:
    """What cannot be written fails the backend: nothing is played on, and nothing is written behind the torn block."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    path = pcap(tmp_path / "in.pcap", [(1, frame(BROADCAST, A)), (5, frame(BROADCAST, A))])
    wanted = backends_pb2.FileBackend(input_path=path, output_path=str(tmp_path / "out"), original_timing=True)
    await plug(running, ports[0], file=wanted)
    backend = running.service._backends._entries["s1", "a"].backend
    output = backend._output
    backend._output = Full(output, room=50)
    b = await device(running.ports, ports[1].handle, completions=True).plug_in()
    b.send([frame(BROADCAST, B)] * 2)
    found = await until_state(running, ports[0], FAILED)
    size = (tmp_path / "out").stat().st_size
    b.send([frame(BROADCAST, B)])
    while (await b.next()).completion.batches != 2:
        pass
    assert "No space left" in found.state_detail
    assert output.closed and (tmp_path / "out").stat().st_size == size
    await asyncio.gather(backend._task, return_exceptions=True)
    assert backend._task.cancelled()
    assert running.service._catalog.engine.counters(ports[0].handle.id).received_frames == 1
