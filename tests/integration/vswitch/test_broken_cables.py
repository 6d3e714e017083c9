"""Faults of the vswitch through its service: links down, links that flap, groups that lose frames."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc, layer_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb

from lamina_kit.rpc import status

A = bytes.fromhex("020000000001")
BROADCAST = b"\xff" * 6
SWITCH = "hosts/h1/switches/s1"
PORT = f"{SWITCH}/ports/a"
MS = 10**6


def frame(number: int = 0) -> bytes:
    """Returns a broadcast from A."""
    return (BROADCAST + A + b"\x88\xb5" + number.to_bytes(2, "big")).ljust(60, b"\0")


async def inject(running: Any, kind: str, object: str, **parameters: int) -> Any:
    """Injects a fault; returns what clears it."""
    stub = faults_pb2_grpc.FaultsStub(running.channel)
    given = [layer_pb2.Attribute(key=key, value=str(value)) for key, value in parameters.items()]
    wanted = faults_pb2.Fault(kind=kind, object=object, parameters=given)
    fault = await stub.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted))

    async def clear() -> Any:
        return await stub.ClearFault(faults_pb2.ClearFaultRequest(name=fault.name))

    return clear


async def make(running: Any, *names: str, group: str = "") -> list[pb.Port]:
    """Makes the switch, a group, and ports in it."""
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="s1", request_id="s"))
    if group:
        request = pb.CreatePortGroupRequest(parent=SWITCH, port_group_id=group, request_id="g")
        await running.switches.CreatePortGroup(request)
    parent = f"{SWITCH}/portGroups/{group}" if group else ""
    requests = [pb.CreatePortRequest(parent=SWITCH, port_id=name, port=pb.Port(port_group=parent)) for name in names]
    return [await running.ports.CreatePort(request) for request in requests]


async def state(running: Any) -> Any:
    """Returns the state of port `a`."""
    return (await running.ports.GetPort(pb.GetPortRequest(name=PORT))).state


async def test_a_cut_link_shows_and_comes_back(start: Any, device: Any) -> None:
    """The port is DOWN although its owner wants it up; the device is told; clearing brings it back."""
    running = await start()
    (port,) = await make(running, "a")
    await device(running.ports, port.handle).plug_in()
    clear = await inject(running, "link-down", PORT)
    found = await running.ports.GetPort(pb.GetPortRequest(name=PORT))
    assert (found.state, found.link) == (pb.Port.STATE_DOWN, pb.LINK_UP)
    await clear()
    assert await state(running) == pb.Port.STATE_UP


async def test_a_link_flaps_by_the_clock(start: Any, device: Any, manual_clock: Any) -> None:
    """It goes down at once, up after `down_ns`, down again after `up_ns`, and each time is an event of the port."""
    running = await start()
    (port,) = await make(running, "a")
    await device(running.ports, port.handle).plug_in()
    clear = await inject(running, "port-flap", PORT, down_ns=10 * MS, up_ns=30 * MS)
    seen = [await state(running)]
    for _ in range(8):
        await manual_clock.advance(10 * MS)
        seen.append(await state(running))
    down, up = pb.Port.STATE_DOWN, pb.Port.STATE_UP
    assert seen == [down, up, up, up, down, up, up, up, down]
    await clear()
    await manual_clock.advance(100 * MS)
    assert await state(running) == up
    events = [entry.event for entry in running.state.events.list(PORT) if entry.event.startswith("link.")]
    assert events == ["link.down", "link.up", "link.down", "link.up", "link.down", "link.up"]


async def test_two_faults_keep_a_port_down_until_both_are_gone(start: Any, device: Any) -> None:
    """Clearing one of two faults of a cable does not mend it."""
    running = await start()
    (port,) = await make(running, "a")
    await device(running.ports, port.handle).plug_in()
    first, second = await inject(running, "link-down", PORT), await inject(running, "port-flap", PORT)
    await first()
    assert await state(running) == pb.Port.STATE_DOWN
    await second()
    assert await state(running) == pb.Port.STATE_UP


async def test_a_group_loses_frames_at_old_and_new_ports(start: Any, device: Any) -> None:
    """Ports that were in the group, and one that comes while the fault lasts, lose what the seed says."""
    running = await start()
    a, b = await make(running, "a", "b", group="g")
    one, _ = [await device(running.ports, port.handle).plug_in() for port in (a, b)]
    clear = await inject(running, "frame-loss", f"{SWITCH}/portGroups/g", ppm=1_000_000)
    (c,) = await make(running, "c", group="g")
    await device(running.ports, c.handle).plug_in()
    one.send([frame()])
    counted = pb.GetPortCountersRequest(port=PORT)
    while not (found := await running.ports.GetPortCounters(counted)).drops:
        pass
    assert [(drop.reason, drop.frames) for drop in found.drops] == [(pb.DROP_REASON_FAULT, 1)]
    assert running.service._catalog.engine._loss.keys() == {1, 2, 3}
    await clear()
    assert not running.service._catalog.engine._loss


async def test_a_deleted_port_takes_its_faults_along(start: Any) -> None:
    """Its faults end as CLEARED, and a new port in its slot is whole."""
    running = await start()
    await make(running, "a")
    clear = await inject(running, "port-flap", PORT)
    await running.ports.DeletePort(pb.DeletePortRequest(name=PORT))
    assert (await clear()).state == faults_pb2.Fault.STATE_CLEARED
    await make(running, "a")
    assert running.service._catalog.engine.link(1)


async def test_what_is_not_there_cannot_break(start: Any) -> None:
    """Unknown ports, groups and hosts have their reasons."""
    running = await start()
    await make(running, "a")
    for kind, object, reason in (
        ("link-down", f"{SWITCH}/ports/none", "PORT_UNKNOWN"),
        ("frame-loss", f"{SWITCH}/portGroups/none", "PORT_GROUP_UNKNOWN"),
        ("link-down", "hosts/h2/switches/s1/ports/a", "HOST_UNKNOWN"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await inject(running, kind, object, **({"ppm": 1} if kind == "frame-loss" else {}))
        assert status.rpc_error(caught.value).reason == reason


async def test_a_deleted_group_takes_its_faults_along(start: Any) -> None:
    """Its loss ends as CLEARED, and a new group of its name loses nothing."""
    running = await start()
    await make(running, group="g")
    group = f"{SWITCH}/portGroups/g"
    clear = await inject(running, "frame-loss", group, ppm=1_000_000)
    await running.switches.DeletePortGroup(pb.DeletePortGroupRequest(name=group))
    assert (await clear()).state == faults_pb2.Fault.STATE_CLEARED
    await make(running, "a", group="g")
    assert not running.service._catalog.engine._loss
