"""What could make the bypass of known frames unsound: who comes between its programs, who else is at an interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.vswitch.v1 import backends_pb2, backends_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc
from tests.linux.hardware.network import Network, needs_network
from tests.linux.vswitch.bypassed import BROADCAST, SLOTS, A, B, C, World, acquainted, frame, needs_bypass

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.features import ALL
from lamina_vswitch.ebpf import bypass as code
from lamina_vswitch.io.attachments.stream import Attachment
from lamina_vswitch.ports.backends import BackendTable
from lamina_vswitch.server import build


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Return a switch with a bypass, by the plane."""
    needs_network()
    needs_bypass()
    made = World(bypassed=True, plane=True)
    for slot in SLOTS:
        await made.ready(f"s{slot}")
        await made.ready(f"e{slot}")
    yield made
    made.close()


async def test_a_station_that_moved_to_a_port_of_the_process_is_followed(world: World) -> None:
    """The kernel learns that from the switch, as it sees no frame of that port: nothing goes to where it was."""
    device = Attachment("p4", 64)
    world.engine.add_port("s", 4, "p4", 0, True)
    world.engine.attach(4, device, time.monotonic_ns(), ALL)
    await acquainted(world)
    world.engine.transmit(4, [frame(B, A)], time.monotonic_ns())
    before, handed = world.engine.counters(4).sent_frames, world.handed(2)
    await world.send(2, frame(A, B, "to its new place"))
    assert (world.engine.counters(4).sent_frames, world.handed(2)) == (before + 1, handed + 1)
    assert await world.arrived(1) == []


async def test_a_note_that_was_left_is_not_for_the_next_frame(world: World) -> None:
    """Where a redirector did not run, as another program came before it, the next frame goes its own way, once."""
    await acquainted(world)
    assert world.bypass is not None
    member = world.junction(1)._member
    device = world.network.do(lambda: socket.if_nametoindex("s3"))
    for processor in range(code.MOST_PROCESSORS):
        at = (code.NOTES_AT + processor * code.NOTE_BYTES) >> 3
        world.bypass._words[at] = member.number << 32 | device
    await world.send(1, frame(BROADCAST, A))
    assert await world.arrived(3) == [frame(BROADCAST, A)]
    assert await world.arrived(2) == [frame(BROADCAST, A)]


async def test_counts_of_a_processor_that_was_late_are_taken(world: World) -> None:
    """What a program counted after the last look is found, also when nothing passes any more."""
    await acquainted(world)
    before = world.engine.counters(1).received_frames
    world.engine.switch_at(1).changed()
    assert world.bypass is not None
    row = (63 * code.MOST_PORTS + world.junction(1)._member.number) * code.ROW_BYTES
    world.bypass._words[(code.COUNTS_AT + row + code.IN_FRAMES) >> 3] += 1
    assert world.engine.counters(1).received_frames == before + 1


async def test_a_place_that_went_to_another_station_says_nothing_of_the_first(world: World) -> None:
    """The filter forgets a station by itself; what is written in its place then does not keep it alive."""
    await acquainted(world)
    assert world.bypass is not None
    filled = world.bypass._filled["s"]
    place = filled.stations[0, A]
    world.bypass._words[place] = int.from_bytes(C, "little") << 16 | world.junction(1)._member.number
    world.bypass._words[place + (code.SEEN >> 3)] = time.monotonic_ns() + 10**10
    entry = world.engine.mac_entry("s", 0, A, time.monotonic_ns())
    assert entry is not None
    assert entry.age_ns >= 0
    assert world.bypass._words[place]


async def test_what_an_interface_does_not_take_is_dropped_by_the_port(world: World) -> None:
    """A frame that is longer than an interface allows comes here, so that its drop has a reason and is counted."""
    await acquainted(world)
    world.network.run("ip link set s2 mtu 500")
    await world.until(lambda: world.junction(2)._member.device.mtu_bytes == 500)
    await acquainted(world)
    handed, sent = world.handed(1), world.engine.counters(2).sent_frames
    await world.send(1, frame(B, A, "long", 600))
    assert world.handed(1) == handed + 1
    assert world.engine.counters(2).sent_frames == sent
    assert dict(world.engine.counters(2).drops_by_reason()) == {DropReason.QUEUE_FULL: 1}


async def test_a_port_that_is_removed_while_its_ring_lost_frames_ends_its_backend(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted nowhere: the port is gone before its backend is closed."""
    backend = world.backends.pop(2)
    monkeypatch.setattr(backend._ring, "lost", lambda: 5)
    world.engine.remove_port(2, time.monotonic_ns())
    backend.close()
    assert backend._in.fileno() < 0


@pytest.mark.parametrize("trouble", ["kernel", "another program", "no number"])
async def test_an_interface_that_cannot_take_part_goes_the_ordinary_way(
    world: World, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel refuses, where another switch is, beyond the last port: it says so, and leaks nothing."""
    await acquainted(world)
    world.engine.add_port("s", 4, "p4", 0, True)
    assert world.bypass is not None
    interface = "s1" if trouble == "another program" else "left"
    if trouble == "no number":
        monkeypatch.setattr(world.bypass, "_free", [])
    elif trouble == "kernel":
        monkeypatch.setattr("lamina_vswitch.io.backends.bypass.attach_alone", refused)
    before = len(os.listdir("/proc/self/fd"))
    backend = world.opened(4, interface)
    assert backend.bypass_failure
    world.engine.attach(4, backend, time.monotonic_ns(), backend.takes)
    backend.start()
    backend.close()
    world.engine.detach(4, backend, time.monotonic_ns())
    assert len(os.listdir("/proc/self/fd")) == before
    await acquainted(world)


def refused(program: int, index: int) -> int:
    """Have the kernel refuse a program."""
    raise OSError(12, "no memory")


HOLDER = """
import sys
from lamina_vswitch.ebpf import bypass as code, programs
from lamina_vswitch.ebpf.assembler import assemble
memory = programs.SharedMemory(code.MEMORY_BYTES)
held = programs.load_first_classifier(assemble(code.redirector(memory.descriptor, 1)))
link = programs.attach_alone(held, int(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""


async def test_a_killed_process_leaves_no_program(world: World) -> None:
    """Another process that was killed holds nothing at an interface."""
    world.engine.add_port("s", 4, "p4", 0, True)
    number = world.network.do(lambda: socket.if_nametoindex("left"))
    command = [sys.executable, "-c", HOLDER, str(number)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with world.network.do(lambda: subprocess.Popen(command, **pipes)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        assert not opens(world)
        other.kill()
    await world.until(lambda: opens(world))


def opens(world: World) -> bool:
    """Tell whether another interface can take part."""
    backend = world.opened(4, "left")
    backend.close()
    return not backend.bypass_failure


@pytest.mark.parametrize("case", ["on", "off", "refused"])
async def test_the_service_tells_of_an_interface_that_is_not_bypassed(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an event that says why; not where the configuration turned it off."""
    needs_network()
    needs_bypass()
    network, clock = Network(), RealClock()
    opened: list[Any] = []
    original = BackendTable._open

    def opening(table: Any, definition: Any, **options: Any) -> Any:
        opened.append(network.do(lambda: original(table, definition, **options)))
        return opened[-1]

    monkeypatch.setattr(BackendTable, "_open", opening)
    if case == "refused":
        monkeypatch.setattr("lamina_vswitch.io.backends.bypass.attach_alone", refused)
    state = LayerState("vswitch", "h1", clock, Rng("test"))
    config = VswitchConfig(bypass=case != "off")
    service = build(Environment("h1", clock, Rng("test"), tmp_path, state, {}), config)
    await service.start()
    channel = local(service, state)
    switch = await rpc.SwitchesStub(channel).CreateSwitch(pb.CreateSwitchRequest(switch_id="s"))
    port = await rpc.PortsStub(channel).CreatePort(pb.CreatePortRequest(parent=switch.name, port_id="p"))
    wanted = backends_pb2.Backend(packet=backends_pb2.PacketBackend(interface="right"))
    request = backends_pb2.CreateBackendRequest(parent=port.name, backend=wanted)
    await backends_pb2_grpc.BackendsStub(channel).CreateBackend(request)
    told = [each for each in state.events.list(limit=1000) if each.event == "backend.not_bypassed"]
    assert (opened[0]._junction is not None) == (case == "on")
    assert len(told) == (case == "refused")
    assert all("no memory" in str(each.inputs) for each in told)
    await service.stop()
    network.close()
