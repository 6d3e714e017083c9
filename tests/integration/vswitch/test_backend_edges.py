"""Where backends meet what others do: settings that change, sockets that are busy, pipes, disks that get full."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import struct
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import backends_pb2, policies_pb2, policies_pb2_grpc
from tests.integration.vswitch.plugging import FAILED, OPEN, plug, state
from tests.integration.vswitch.ring_device import SWITCH, make_ports
from tests.integration.vswitch.test_attach import BROADCAST, A, frame, reason_of
from tests.offload_frames import packet

from lamina_vswitch.domain.frames.metadata import NEEDS_CHECKSUM, TCP4, Offload, laden

real_time = pytest.mark.real_time("sockets of the machine")


async def test_a_backend_follows_the_mtu_of_its_switch(start: Any) -> None:
    """Long packets from outside are measured by the MTU that the switch has then, not when the backend was opened."""
    running = await start()
    (port,) = await make_ports(running, "a", mtu_bytes=9000)
    await plug(running, port, file=backends_pb2.FileBackend())
    backend = running.service._backends._entries["s1", "a"].backend
    long = laden(packet(4, 6, bytes(20_000)), Offload(NEEDS_CHECKSUM, TCP4, 54, 8000, 34, 16), None)
    drops = running.service._catalog.engine.counters
    backend._end.transmit([long])
    assert "OFFLOAD_INVALID" not in [reason.name for reason, _ in drops(port.handle.id).drops_by_reason()]
    smaller = policies_pb2.SwitchSettings(name=f"{SWITCH}/settings", mtu_bytes=1500)
    await policies_pb2_grpc.PoliciesStub(running.channel).UpdateSwitchSettings(
        policies_pb2.UpdateSwitchSettingsRequest(settings=smaller)
    )
    backend._end.transmit([long])
    assert "OFFLOAD_INVALID" in [reason.name for reason, _ in drops(port.handle.id).drops_by_reason()]


@real_time
async def test_a_port_that_was_chosen_stays(start: Any, manual_clock: Any) -> None:
    """UDP port 0 takes a free one, which is shown, and still is after a restart; so is what the request made."""
    manual_clock.mode = "real"
    running = await start()
    (port,) = await make_ports(running, "a")
    wanted = backends_pb2.DatagramBackend(local_address="udp:127.0.0.1:0")
    made = await plug(running, port, "r1", datagram=wanted)
    await running.stop()
    start.running.clear()
    running = await start()
    assert (await state(running, port)).datagram.local_address == made.datagram.local_address
    assert (await plug(running, port, "r1", datagram=wanted)).state == OPEN


@real_time
@pytest.mark.timeout(60)
async def test_a_listener_that_is_busy_is_alive(start: Any, manual_clock: Any, tmp_path: Path) -> None:
    """A path at which somebody listens who has enough that wait is in use; asking does not hold up the service."""
    manual_clock.mode = "real"
    running = await start()
    (port,) = await make_ports(running, "a")
    path = str(tmp_path / "busy")
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as first:
        other.bind(path)
        other.listen(0)
        first.connect(path)
        wanted = backends_pb2.StreamBackend(address=f"unix:{path}", listen=True)
        refused = await reason_of(plug(running, port, stream=wanted))
    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "DEVICE_IN_USE")


@pytest.mark.timeout(60)
async def test_pipes_are_no_files(start: Any, tmp_path: Path) -> None:
    """To open a pipe would wait for its other end, and the whole service with it."""
    running = await start()
    (port,) = await make_ports(running, "a")
    os.mkfifo(tmp_path / "pipe")
    for field in ("input_path", "output_path"):
        wanted = backends_pb2.FileBackend()
        setattr(wanted, field, str(tmp_path / "pipe"))
        refused = await reason_of(plug(running, port, file=wanted))
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")


class Disk(io.RawIOBase):
    """A file on a disk that takes a few bytes at a time, and then none."""

    def __init__(self, room: int) -> None:
        self.room, self.data = room, b""

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def write(self, data: Any) -> int:
        """Take up to seven bytes."""
        taken = bytes(data[: min(7, self.room)])
        if not taken:
            raise OSError(28, "No space left on device")
        self.room -= len(taken)
        self.data += taken
        return len(taken)


async def test_a_disk_that_gets_full_ends_the_output(start: Any) -> None:
    """What the disk takes in parts is whole; behind a part that it did not take, nothing is written any more."""
    running = await start()
    (port,) = await make_ports(running, "a")
    await plug(running, port, file=backends_pb2.FileBackend())
    backend = running.service._backends._entries["s1", "a"].backend
    one = frame(BROADCAST, A)
    disk = backend._output = Disk(10_000)
    assert backend.deliver([one]) == 1 and one in disk.data
    disk.room = 9
    assert backend.deliver([one]) == 0 and (await state(running, port)).state == FAILED
    disk.room, before = 10_000, disk.data
    assert backend.deliver([one]) == 0 and disk.data == before


async def test_an_output_that_fails_ends_the_input(start: Any, tmp_path: Path) -> None:
    """A backend that has failed plays no further, and stays failed."""
    running = await start()
    (port,) = await make_ports(running, "a")
    hourly = b"".join(struct.pack("<IIII", 3600 * n, 0, 64, 64) + frame(BROADCAST, A).ljust(64, b"\0") for n in (0, 1))
    (tmp_path / "in.pcap").write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + hourly)
    playing = backends_pb2.FileBackend(input_path=str(tmp_path / "in.pcap"), original_timing=True)
    await plug(running, port, file=playing)
    backend = running.service._backends._entries["s1", "a"].backend
    backend._output = Disk(0)
    assert backend.deliver([frame(BROADCAST, A)]) == 0
    async with asyncio.timeout(10):
        await asyncio.gather(backend._task, return_exceptions=True)
    assert backend._task.cancelled() and (await state(running, port)).state == FAILED
