"""Switches, port groups, ports and MAC entries through the service: life, limits, pages, sessions, restarts."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from lamina.common.v1 import layer_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.refusals import refusal

from lamina_kit.clock import RealClock
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.layer.service import local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig

SWITCH = "hosts/h1/switches/s1"
GROUP = f"{SWITCH}/portGroups/web"
PORT = f"{SWITCH}/ports/p1"
MAC = "02:00:00:00:00:01"
SECOND_NS = 1_000_000_000


async def make(running: Any) -> None:
    """Make one switch with one group and one port."""
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="s1", switch=pb.Switch(mtu_bytes=9000)))
    await running.switches.CreatePortGroup(
        pb.CreatePortGroupRequest(parent=SWITCH, port_group_id="web", port_group=pb.PortGroup(vlan_id=100))
    )
    await running.ports.CreatePort(
        pb.CreatePortRequest(parent=SWITCH, port_id="p1", port=pb.Port(port_group=GROUP), request_id="one")
    )


async def test_a_switch_lives(start: Any) -> None:
    """Defaults are filled in, groups and ports are counted, and a switch in use is deleted only by force."""
    running = await start()
    await make(running)
    switch = await running.switches.GetSwitch(pb.GetSwitchRequest(name=SWITCH))
    assert switch == pb.Switch(name=SWITCH, mtu_bytes=9000, mac_ageing_seconds=300, mac_table_limit=8192, port_count=1)
    group = await running.switches.GetPortGroup(pb.GetPortGroupRequest(name=GROUP))
    assert group == pb.PortGroup(name=GROUP, vlan_id=100, port_count=1)
    port = await running.ports.GetPort(pb.GetPortRequest(name=PORT))
    assert (port.vlan_id, port.state, port.link, port.owner) == (100, pb.Port.STATE_DETACHED, pb.LINK_UP, "")
    delete = pb.DeleteSwitchRequest(name=SWITCH)
    assert await refusal(running.switches.DeleteSwitch(delete)) == ("FAILED_PRECONDITION", "SWITCH_IN_USE")
    group_in_use = running.switches.DeletePortGroup(pb.DeletePortGroupRequest(name=GROUP))
    assert await refusal(group_in_use) == ("FAILED_PRECONDITION", "PORT_GROUP_IN_USE")
    await running.switches.DeleteSwitch(pb.DeleteSwitchRequest(name=SWITCH, force=True))
    assert await refusal(running.ports.GetPort(pb.GetPortRequest(name=PORT))) == ("NOT_FOUND", "PORT_UNKNOWN")
    assert not (await running.switches.ListSwitches(pb.ListSwitchesRequest())).switches


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateSwitchRequest(switch_id="Bad"),
        pb.CreateSwitchRequest(),
        pb.CreateSwitchRequest(switch_id="s", switch=pb.Switch(mtu_bytes=575)),
        pb.CreateSwitchRequest(switch_id="s", switch=pb.Switch(mtu_bytes=9001)),
        pb.CreateSwitchRequest(switch_id="s", switch=pb.Switch(mtu_bytes=-1)),
        pb.CreateSwitchRequest(switch_id="s", switch=pb.Switch(mac_ageing_seconds=-1)),
        pb.CreateSwitchRequest(switch_id="s", switch=pb.Switch(mac_ageing_seconds=2**62)),
        pb.CreateSwitchRequest(switch_id="s", switch=pb.Switch(mac_table_limit=2**30)),
        pb.CreateSwitchRequest(switch_id="s", request_id="x" * 64),
    ],
)
async def test_bad_switches_are_refused(start: Any, request_: Any) -> None:
    """Names and numbers out of range are INVALID_ARGUMENT, and nothing is made."""
    running = await start()
    assert await refusal(running.switches.CreateSwitch(request_)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert not (await running.switches.ListSwitches(pb.ListSwitchesRequest())).switches


async def test_bad_groups_ports_and_entries_are_refused(start: Any) -> None:
    """Wrong VLANs, groups of other switches, impossible addresses and unknown masks each have their answer."""
    running = await start()
    await make(running)
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="s2"))
    bad = ("INVALID_ARGUMENT", "REQUEST_INVALID")
    vlan = pb.CreatePortGroupRequest(parent=SWITCH, port_group_id="g", port_group=pb.PortGroup(vlan_id=4095))
    assert await refusal(running.switches.CreatePortGroup(vlan)) == bad
    foreign = pb.CreatePortRequest(parent="hosts/h1/switches/s2", port_id="p", port=pb.Port(port_group=GROUP))
    assert await refusal(running.ports.CreatePort(foreign)) == bad
    unknown = pb.CreatePortRequest(parent=SWITCH, port_id="p", port=pb.Port(port_group=f"{SWITCH}/portGroups/no"))
    assert await refusal(running.ports.CreatePort(unknown)) == ("NOT_FOUND", "PORT_GROUP_UNKNOWN")
    for mac in ("", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00:00:00:00"):
        entry = pb.CreateMacEntryRequest(parent=SWITCH, mac_entry=pb.MacEntry(mac_address=mac, port=PORT))
        assert await refusal(running.switches.CreateMacEntry(entry)) == bad
    mask = pb.UpdatePortRequest(port=pb.Port(name=PORT), update_mask=FieldMask(paths=["owner"]))
    assert await refusal(running.ports.UpdatePort(mask)) == bad
    flush = pb.FlushMacTableRequest(name=SWITCH, vlan_id=4095)
    assert await refusal(running.switches.FlushMacTable(flush)) == bad
    frame = pb.TraceFrameRequest(port=PORT, frame=bytes(65536))
    assert await refusal(running.ports.TraceFrame(frame)) == bad


async def test_wrong_names_are_refused(start: Any) -> None:
    """A malformed name is INVALID_ARGUMENT; a well-formed one of another host or object is NOT_FOUND."""
    running = await start()
    await make(running)
    malformed = ("INVALID_ARGUMENT", "NAME_MALFORMED")
    assert await refusal(running.ports.GetPort(pb.GetPortRequest(name="p1"))) == malformed
    assert await refusal(running.ports.GetPort(pb.GetPortRequest(name=SWITCH))) == malformed
    entry = pb.DeleteMacEntryRequest(name=f"{SWITCH}/macEntries/v1-xyz")
    assert await refusal(running.switches.DeleteMacEntry(entry)) == malformed
    other_host = pb.GetSwitchRequest(name="hosts/h2/switches/s1")
    assert await refusal(running.switches.GetSwitch(other_host)) == ("NOT_FOUND", "SWITCH_UNKNOWN")
    gone = pb.DeleteMacEntryRequest(name=f"{SWITCH}/macEntries/v1-020000000001")
    assert await refusal(running.switches.DeleteMacEntry(gone)) == ("NOT_FOUND", "MAC_ENTRY_UNKNOWN")


async def test_a_repeated_create_makes_one_thing(start: Any) -> None:
    """The same request id returns what it made; with other content it is refused; without one the name is taken."""
    running = await start()
    await make(running)
    again = pb.CreatePortRequest(parent=SWITCH, port_id="p1", port=pb.Port(port_group=GROUP), request_id="one")
    first = await running.ports.GetPort(pb.GetPortRequest(name=PORT))
    assert await running.ports.CreatePort(again) == first
    other = pb.CreatePortRequest(parent=SWITCH, port_id="p2", port=pb.Port(port_group=GROUP), request_id="one")
    assert await refusal(running.ports.CreatePort(other)) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    taken = pb.CreatePortRequest(parent=SWITCH, port_id="p1")
    assert await refusal(running.ports.CreatePort(taken)) == ("ALREADY_EXISTS", "PORT_EXISTS")
    await running.ports.DeletePort(pb.DeletePortRequest(name=PORT))
    assert (await running.ports.CreatePort(other)).name == f"{SWITCH}/ports/p2"


async def test_limits_hold(start: Any) -> None:
    """The host has no more switches and ports than its configuration allows."""
    running = await start(VswitchConfig(max_switches=1, max_ports=1))
    await make(running)
    switch = running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="s2"))
    assert await refusal(switch) == ("RESOURCE_EXHAUSTED", "SWITCH_LIMIT")
    port = running.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id="p2"))
    assert await refusal(port) == ("RESOURCE_EXHAUSTED", "PORT_LIMIT")


async def test_lists_come_in_pages(start: Any) -> None:
    """Pages follow each other without gap or repeat, also when an item goes in between; bad sizes and tokens fail."""
    running = await start()
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="s1"))
    for number in range(5):
        await running.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id=f"p{number}"))
    page = await running.ports.ListPorts(pb.ListPortsRequest(parent=SWITCH, page_size=2))
    assert [port.name[-2:] for port in page.ports] == ["p0", "p1"]
    await running.ports.DeletePort(pb.DeletePortRequest(name=PORT))
    rest = await running.ports.ListPorts(
        pb.ListPortsRequest(parent=SWITCH, page_size=9, page_token=page.next_page_token)
    )
    assert [port.name[-2:] for port in rest.ports] == ["p2", "p3", "p4"]
    assert rest.next_page_token == ""
    size = running.ports.ListPorts(pb.ListPortsRequest(parent=SWITCH, page_size=-1))
    assert await refusal(size) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    token = running.ports.ListPorts(pb.ListPortsRequest(parent=SWITCH, page_token="No!"))
    assert await refusal(token) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_static_entries_through_the_service(start: Any) -> None:
    """An entry is made once, shown, refused for another port, kept by a flush, and deleted by its name."""
    running = await start()
    await make(running)
    await running.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id="p2", port=pb.Port(port_group=GROUP)))
    wanted = pb.CreateMacEntryRequest(parent=SWITCH, mac_entry=pb.MacEntry(mac_address=MAC, port=PORT))
    entry = await running.switches.CreateMacEntry(wanted)
    assert entry == await running.switches.CreateMacEntry(wanted)
    assert (entry.vlan_id, entry.type, entry.name) == (
        100,
        pb.MacEntry.TYPE_STATIC,
        f"{SWITCH}/macEntries/v100-020000000001",
    )
    wanted.mac_entry.port = f"{SWITCH}/ports/p2"
    assert await refusal(running.switches.CreateMacEntry(wanted)) == ("ALREADY_EXISTS", "MAC_ENTRY_EXISTS")
    flushed = await running.switches.FlushMacTable(pb.FlushMacTableRequest(name=SWITCH, vlan_id=100, port=PORT))
    assert flushed.flushed_entries == 0
    await running.switches.DeleteMacEntry(pb.DeleteMacEntryRequest(name=entry.name))
    assert not (await running.switches.ListMacEntries(pb.ListMacEntriesRequest(parent=SWITCH))).mac_entries


async def test_a_port_changes_its_group(start: Any) -> None:
    """A port moves to another group, and out of every group, by the mask; what the mask leaves out stays."""
    running = await start()
    await make(running)
    moved = await running.ports.UpdatePort(
        pb.UpdatePortRequest(port=pb.Port(name=PORT, link=pb.LINK_DOWN), update_mask=FieldMask(paths=["port_group"]))
    )
    assert (moved.port_group, moved.vlan_id, moved.link) == ("", 0, pb.LINK_UP)
    back = await running.ports.UpdatePort(pb.UpdatePortRequest(port=pb.Port(name=PORT, port_group=GROUP)))
    assert (back.port_group, back.vlan_id, back.link) == (GROUP, 100, pb.LINK_UP)


async def test_a_trace_through_the_service(start: Any) -> None:
    """TraceFrame answers for a frame that would be dropped, and says by which rule."""
    running = await start()
    await make(running)
    told = await running.ports.TraceFrame(pb.TraceFrameRequest(port=PORT, frame=bytes(60)))
    assert (told.verdict, told.drop_reason) == (pb.TraceFrameResponse.VERDICT_DROPPED, pb.DROP_REASON_LINK_DOWN)
    assert [step.stage for step in told.steps] == ["ingress", "output"]


async def test_ports_of_a_session_are_freed_when_it_expires(start: Any, manual_clock: Any, eventually: Any) -> None:
    """A session's port outlives a break of 30 s at most; ports without a session stay."""
    running = await start()
    await make(running)
    session = await OwnerSession.open(running.channel, "h1/hypervisor", 1, manual_clock)
    port = await running.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id="vm"), metadata=session.metadata)
    assert port.owner == "h1/hypervisor"
    await session.close()
    sessions = running.state.sessions
    await eventually(lambda: sessions.state("h1/hypervisor").value == "broken", "the session is broken")
    await manual_clock.advance(30 * SECOND_NS - 1)
    assert len((await running.ports.ListPorts(pb.ListPortsRequest(parent=SWITCH))).ports) == 2
    await manual_clock.advance(1)
    left = (await running.ports.ListPorts(pb.ListPortsRequest(parent=SWITCH))).ports
    assert [port.name for port in left] == [PORT]


async def test_a_service_that_stops_frees_nothing(start: Any, manual_clock: Any, eventually: Any) -> None:
    """A session that is broken when the service stops keeps its ports: its owner has 30 s from the next start."""
    first = await start()
    await make(first)
    session = await OwnerSession.open(first.channel, "h1/hypervisor", 1, manual_clock)
    request = pb.CreatePortRequest(parent=SWITCH, port_id="vm")
    await first.ports.CreatePort(request, metadata=session.metadata)
    await session.close()
    await eventually(lambda: first.state.sessions.state("h1/hypervisor").value == "broken", "the session is broken")
    await first.stop()
    await manual_clock.advance(60 * SECOND_NS)
    second = await start()
    assert len((await second.ports.ListPorts(pb.ListPortsRequest(parent=SWITCH))).ports) == 2


async def test_a_port_is_not_made_for_a_session_that_is_not_open(start: Any) -> None:
    """A call that names a session which does not exist makes nothing."""
    running = await start()
    await make(running)
    request = pb.CreatePortRequest(parent=SWITCH, port_id="vm")
    call = running.ports.CreatePort(request, metadata=(("lamina-session", "h1/hypervisor/7"),))
    assert await refusal(call) == ("FAILED_PRECONDITION", "SESSION_REQUIRED")


async def test_definitions_survive_a_restart_and_learned_entries_do_not(start: Any) -> None:
    """A second start finds switches, groups, ports with their handles, and static entries; it repeats no create."""
    first = await start()
    await make(first)
    await first.switches.CreateMacEntry(
        pb.CreateMacEntryRequest(parent=SWITCH, mac_entry=pb.MacEntry(mac_address=MAC, port=PORT))
    )
    ports = pb.ListPortsRequest(parent=SWITCH)
    before = (await first.switches.GetSwitch(pb.GetSwitchRequest(name=SWITCH)), await first.ports.ListPorts(ports))
    await first.stop()
    second = await start()
    after = (await second.switches.GetSwitch(pb.GetSwitchRequest(name=SWITCH)), await second.ports.ListPorts(ports))
    assert after == before
    again = pb.CreatePortRequest(parent=SWITCH, port_id="p1", port=pb.Port(port_group=GROUP), request_id="one")
    assert await second.ports.CreatePort(again) == before[1].ports[0]


async def test_owners_that_do_not_come_back_after_a_restart_lose_their_ports(start: Any, manual_clock: Any) -> None:
    """The service gives owners from before its restart 30 s too; one that opens a session again keeps its port."""
    first = await start()
    await make(first)
    for owner in ("h1/keeps", "h1/loses"):
        session = await OwnerSession.open(first.channel, owner, 1, manual_clock)
        request = pb.CreatePortRequest(parent=SWITCH, port_id=owner[3:])
        await first.ports.CreatePort(request, metadata=session.metadata)
        await session.close()
    await first.stop()
    second = await start()
    session = await OwnerSession.open(second.channel, "h1/keeps", 2, manual_clock)
    assert session.adopted_objects == 1
    await manual_clock.advance(30 * SECOND_NS)
    left = (await second.ports.ListPorts(pb.ListPortsRequest(parent=SWITCH))).ports
    assert [port.name.rpartition("/")[2] for port in left] == ["keeps", "p1"]
    await session.close()


async def test_it_introduces_itself_to_the_hardware(start: Any) -> None:
    """The service holds a session below, with a higher epoch at every start, and passes the host's boot id on."""

    class Hardware:
        """Serves nothing but what every layer serves."""

        layer = "hardware"
        service_names = ()

        def register(self, server: Any) -> None:
            """Has no services of its own."""

    state = LayerState("hardware", "h1", RealClock(), Rng(1), boot_id="boot-7")
    channel = local(Hardware(), state)  # type: ignore[arg-type]
    for epoch in (1, 2):
        running = await start(channels={"hardware": channel})
        assert (state.sessions.epoch("h1/vswitch"), running.state.boot_id) == (epoch, "boot-7")
        answer = await running.layer.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.0"))
        assert (answer.layer, answer.engine, answer.boot_id) == ("vswitch", "model", "boot-7")
        assert {"access-vlan", "learning", "static-mac", "trace-frame", "watching"} <= set(answer.capabilities)
        await running.stop()


async def test_reflection_and_health_know_the_services(start: Any) -> None:
    """What grpcurl lists includes both services, and health says that they serve."""
    running = await start()

    async def ask() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    answer = await stub.ServerReflectionInfo(ask()).read()
    listed = [service.name for service in answer.list_services_response.service]
    assert {"lamina.vswitch.v1.Switches", "lamina.vswitch.v1.Ports", "lamina.common.v1.Layer"} <= set(listed)
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    for name in running.service.service_names:
        found = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert found.status == health_pb2.HealthCheckResponse.SERVING


async def test_what_was_done_is_in_the_event_log(start: Any) -> None:
    """Creations and deletions are events of their object."""
    running = await start()
    await make(running)
    await running.ports.DeletePort(pb.DeletePortRequest(name=PORT))
    events = (await running.layer.ListEvents(layer_pb2.ListEventsRequest(object=PORT))).events
    assert [event.event for event in events] == ["port.created", "port.deleted"]
