"""Changes of ports as a stream: what is so first, then every change, merged where the reader is slow."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import captures_pb2 as pb
from lamina.vswitch.v1 import captures_pb2_grpc as rpc
from lamina.vswitch.v1 import policies_pb2, vswitch_pb2
from tests.integration.vswitch.refusals import refusal

from lamina_vswitch.domain.switch.topology import Shut, ShutReason

SWITCH = "hosts/h1/switches/s1"
PORTS = f"{SWITCH}/ports"
STATE = vswitch_pb2.Port.State


class Watch:
    """Reads a stream of changes."""

    def __init__(self, running: Any) -> None:
        self.call = rpc.CapturesStub(running.channel).WatchPorts(pb.WatchPortsRequest(parent=SWITCH))

    async def message(self) -> pb.WatchPortsResponse:
        """Return the next message."""
        async with asyncio.timeout(10):
            message: Any = await self.call.read()
        assert message is not grpc.aio.EOF and len(message.changes) <= 256
        found: pb.WatchPortsResponse = message
        return found

    async def initial(self) -> list[pb.PortChange]:
        """Return what was so at the start."""
        found: list[pb.PortChange] = []
        while True:
            message = await self.message()
            found += message.changes
            if message.initial_end:
                return found

    async def next(self) -> list[tuple[str, str]]:
        """Return port and state of the next changes."""
        return [self.told(change) for change in (await self.message()).changes]

    @staticmethod
    def told(change: pb.PortChange) -> tuple[str, str]:
        """Return the port and its state in words."""
        name = change.port.name.rpartition("/")[2]
        return name, "gone" if change.deleted else STATE.Name(change.port.state).removeprefix("STATE_").lower()


async def make_port(running: Any, name: str) -> vswitch_pb2.Port:
    """Make a port."""
    request = vswitch_pb2.CreatePortRequest(parent=SWITCH, port_id=name)
    found: vswitch_pb2.Port = await running.ports.CreatePort(request)
    return found


@pytest.fixture
async def running(start: Any) -> Any:
    """Returns a service with the switch s1."""
    running = await start()
    await running.switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id="s1"))
    return running


async def test_every_change_comes_after_what_was_so(running: Any, device: Any) -> None:
    """A port's making, carrier, link, loss of carrier and end are told, each with the port as it is then."""
    port = await make_port(running, "a")
    watch = Watch(running)
    assert [change.port for change in await watch.initial()] == [port]
    plugged = await device(running.ports, port.handle).plug_in()
    assert await watch.next() == [("a", "up")]
    for link, state in ((vswitch_pb2.LINK_DOWN, "down"), (vswitch_pb2.LINK_UP, "up")):
        update = vswitch_pb2.UpdatePortRequest(port=vswitch_pb2.Port(name=port.name, link=link))
        await running.ports.UpdatePort(update)
        assert await watch.next() == [("a", state)]
    plugged.finish()
    assert await watch.next() == [("a", "detached")]
    await make_port(running, "b")
    assert await watch.next() == [("b", "detached")]
    await running.ports.DeletePort(vswitch_pb2.DeletePortRequest(name=port.name))
    gone = (await watch.message()).changes[0]
    assert gone == pb.PortChange(port=vswitch_pb2.Port(name=port.name, handle=port.handle), deleted=True)


async def test_an_empty_switch_begins_with_an_empty_message(running: Any) -> None:
    """The end of what was so is told even when nothing was."""
    watch = Watch(running)
    assert await watch.message() == pb.WatchPortsResponse(initial_end=True)


async def test_many_ports_come_in_messages_of_256(running: Any) -> None:
    """The last message of what was so, and no other, says that it is the last."""
    for number in range(300):
        await make_port(running, f"p{number:03}")
    watch = Watch(running)
    first, second = await watch.message(), await watch.message()
    assert [(len(m.changes), m.initial_end) for m in (first, second)] == [(256, False), (44, True)]
    names = [change.port.name for change in (*first.changes, *second.changes)]
    assert names == [f"{PORTS}/p{number:03}" for number in range(300)]


async def test_a_stream_ends_with_its_switch_and_with_the_service(running: Any) -> None:
    """A deleted switch tells of its ports first; a stopping service says so; an unknown switch is refused."""
    await make_port(running, "a")
    watch = Watch(running)
    await watch.initial()
    await running.switches.DeleteSwitch(vswitch_pb2.DeleteSwitchRequest(name=SWITCH, force=True))
    assert await watch.next() == [("a", "gone")]
    assert await refusal(watch.message()) == ("ABORTED", "SWITCH_DELETED")
    assert await refusal(Watch(running).message()) == ("NOT_FOUND", "SWITCH_UNKNOWN")
    await running.switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id="s1"))
    watch = Watch(running)
    await watch.initial()
    running.service._watchers.stop()
    assert await refusal(watch.message()) == ("UNAVAILABLE", "SERVICE_STOPPING")


async def test_a_shut_and_a_held_port_are_told_with_the_reason(running: Any, device: Any) -> None:
    """Why a port is shut comes with the change, and that it is open again; so does a hold and its end."""
    port = await make_port(running, "a")
    engine, slot = running.service._catalog.engine, port.handle.id
    await device(running.ports, port.handle).plug_in()
    watch = Watch(running)
    await watch.initial()
    engine.switch_at(slot).shut_port(slot, Shut(ShutReason.STORM, 0))
    (change,) = (await watch.message()).changes
    assert (watch.told(change), change.shut_reason) == (("a", "shut"), policies_pb2.SHUT_REASON_STORM)
    engine.reopen(slot, 0)
    (change,) = (await watch.message()).changes
    assert (watch.told(change), change.shut_reason, change.held) == (("a", "up"), 0, False)
    engine.quiesce(slot, 10, 0)
    assert (await watch.message()).changes[0].held
    engine.release(slot, 0)
    assert not (await watch.message()).changes[0].held
