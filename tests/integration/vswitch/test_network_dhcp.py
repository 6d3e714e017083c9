"""DHCP through the wire: renewing, refusing, declining, releasing, reserving; floods and lies; the disk."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import policies_pb2, policies_pb2_grpc, uplinks_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.network_bench import LAN, SECOND_NS, SWITCH, NetworkBench
from tests.integration.vswitch.refusals import refusal

from lamina_kit.errors import Unavailable
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.network.dhcp.message import Kind, Option

BASE = 0x0A000200
ROUTER = BASE + 1


pytestmark = pytest.mark.parametrize("start", ["local"], indirect=True)


@pytest.fixture
async def bench(start: Any, device: Any) -> NetworkBench:
    """Returns a service with a switch and a network of two minutes' leases."""
    bench = await NetworkBench(await start(), device).open()
    await bench.create(dhcp=nets.DhcpServer(lease_seconds=120, domain="lab"))
    return bench


async def test_a_lease_is_renewed_and_ends_by_the_clock(bench: NetworkBench, manual_clock: Any) -> None:
    """Renewing moves the end; without it the lease ends at its nanosecond, and the device may have it back."""
    guest = await bench.guest(1)
    await guest.get_address()
    await manual_clock.advance(60 * SECOND_NS)
    guest.send_dhcp(Kind.REQUEST, client=guest.address)
    ack = await guest.dhcp()
    assert (ack.kind, ack.client, ack.yours) == (Kind.ACK, guest.address, guest.address)
    assert [lease.end_time_ns for lease in await bench.leases()] == [180 * SECOND_NS]
    await manual_clock.advance(120 * SECOND_NS - 1)
    assert len(await bench.leases()) == 1
    await manual_clock.advance(1)
    assert await bench.leases() == []
    guest.send_dhcp(Kind.REQUEST, requested_address=guest.address)
    assert (await guest.dhcp()).yours == guest.address


async def test_what_cannot_be_had_is_refused_and_what_is_unknown_is_not_answered(bench: NetworkBench) -> None:
    """NAK for another subnet and for what another has; silence for a stranger who asks for what is free."""
    first, second = await bench.guest(1), await bench.guest(2)
    await first.get_address()
    for wanted in (0xC0A80105, first.address, ROUTER, BASE + 255):
        second.send_dhcp(Kind.REQUEST, requested_address=wanted)
        assert (await second.dhcp()).kind is Kind.NAK, format_address(wanted)
    second.send_dhcp(Kind.REQUEST, requested_address=BASE + 77)
    second.send_dhcp(Kind.REQUEST, requested_address=BASE + 2, server_identifier=0x0A000299)
    offer = await second.discover()
    assert (offer.kind, offer.yours) == (Kind.OFFER, BASE + 3)
    second.send_dhcp(Kind.INFORM, client=BASE + 50)
    told = await second.dhcp()
    assert (told.kind, told.yours, told.address(Option.ROUTER)) == (Kind.ACK, 0, ROUTER)
    assert Option.LEASE_TIME not in told.options


async def test_an_offer_ends_and_a_release_frees(bench: NetworkBench, manual_clock: Any) -> None:
    """An offer holds its address for 60 s; what was released is offered to its port again, whoever asks there."""
    first, second = await bench.guest(1), await bench.guest(2)
    assert (await first.discover()).yours == BASE + 2
    assert (await second.discover()).yours == BASE + 3
    await manual_clock.advance(60 * SECOND_NS)
    await second.get_address()
    assert second.address == BASE + 2
    second.send_dhcp(Kind.RELEASE, client=second.address)
    assert (await second.discover(mac=b"\x02" + bytes(4) + b"\x77")).yours == BASE + 2
    assert await bench.leases() == []


async def test_an_address_in_use_rests(bench: NetworkBench, manual_clock: Any) -> None:
    """A declined address is not offered for ten minutes, an ended one for one; then the lowest is free again."""
    guest = await bench.guest(1)
    await guest.get_address()
    guest.send_dhcp(Kind.DECLINE, requested_address=guest.address)
    await guest.get_address()
    assert guest.address == BASE + 3
    lease = f"{LAN}/leases/10-0-2-3"
    await bench.networks.DeleteLease(nets.DeleteLeaseRequest(name=lease))
    gone = bench.networks.DeleteLease(nets.DeleteLeaseRequest(name=lease))
    assert await refusal(gone) == ("NOT_FOUND", "LEASE_UNKNOWN")
    other = await bench.guest(2)
    assert (await other.discover()).yours == BASE + 4
    await manual_clock.advance(61 * SECOND_NS)
    assert (await other.discover()).yours == BASE + 3
    await manual_clock.advance(600 * SECOND_NS)
    assert (await other.discover()).yours == BASE + 2


async def test_a_reserved_address_is_its_device_s(bench: NetworkBench) -> None:
    """It is offered to its MAC address, outside of the range too, and to nobody else; its name is what DNS gives."""
    reserved = nets.Reservation(mac_address="02:00:00:00:00:02", address="10.0.2.2", host_name="printer")
    request = nets.CreateReservationRequest(parent=LAN, reservation=reserved)
    made = await bench.networks.CreateReservation(request)
    assert made.name == f"{LAN}/reservations/020000000002"
    assert await bench.networks.CreateReservation(request) == made
    first, second = await bench.guest(1), await bench.guest(2)
    await first.get_address()
    await second.get_address(host_name=b"spooler")
    assert (first.address, second.address) == (BASE + 3, BASE + 2)
    _, _, records = await first.ask("printer.lab", 1)
    assert records == [("printer.lab", 1, bytes([10, 0, 2, 2]))]
    request.reservation.address = "10.0.2.9"
    assert await refusal(bench.networks.CreateReservation(request)) == ("ALREADY_EXISTS", "RESERVATION_EXISTS")
    request.reservation.mac_address = "02:00:00:00:00:03"
    for taken in ("10.0.2.2", "10.0.2.3"):
        request.reservation.address = taken
        assert await refusal(bench.networks.CreateReservation(request)) == ("ALREADY_EXISTS", "ADDRESS_TAKEN")
    for bad in ("10.0.2.1", "10.0.3.9", "10.0.2.255", "x"):
        request.reservation.address = bad
        assert await refusal(bench.networks.CreateReservation(request)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    await bench.networks.DeleteReservation(nets.DeleteReservationRequest(name=made.name))
    gone = bench.networks.DeleteReservation(nets.DeleteReservationRequest(name=made.name))
    assert await refusal(gone) == ("NOT_FOUND", "RESERVATION_UNKNOWN")
    assert [lease.address for lease in await bench.leases()] == ["10.0.2.2/24", "10.0.2.3/24"]


async def test_one_port_cannot_take_the_others_addresses(bench: NetworkBench) -> None:
    """A port that asks with ever new MAC addresses gets four; what is above is counted, and others are served."""
    greedy, modest = await bench.guest(1), await bench.guest(2)
    offers = []
    for number in range(4):
        offers.append((await greedy.discover(mac=bytes([2, 9, 0, 0, 0, number]))).yours)
    for number in range(4, 300):
        greedy.send_dhcp(Kind.DISCOVER, mac=bytes([2, 9, 0, 0, number >> 8, number & 255]))
    assert offers == [BASE + 2, BASE + 3, BASE + 4, BASE + 5]
    greedy.send_dhcp(Kind.INFORM, client=BASE + 200)
    assert (await greedy.dhcp()).kind is Kind.ACK
    await modest.get_address()
    assert modest.address == BASE + 6
    assert await bench.drops() == {"DHCP_EXHAUSTED": 296}


async def test_declined_addresses_count_for_their_port(bench: NetworkBench, manual_clock: Any) -> None:
    """A port that declines whatever it gets puts four addresses to rest, and no more until their time is over."""
    greedy, modest = await bench.guest(1), await bench.guest(2)
    for number in range(5):
        mac = bytes([2, 9, 0, 0, 0, number])
        if number == 4:
            greedy.send_dhcp(Kind.DISCOVER, mac=mac)
            continue
        offer = await greedy.discover(mac=mac)
        greedy.send_dhcp(Kind.DECLINE, mac=mac, requested_address=offer.yours)
    greedy.send_dhcp(Kind.INFORM, client=BASE + 200)
    assert (await greedy.dhcp()).kind is Kind.ACK
    assert await bench.drops() == {"DHCP_EXHAUSTED": 1}
    await modest.get_address()
    assert modest.address == BASE + 6
    await manual_clock.advance(600 * SECOND_NS)
    assert (await greedy.discover()).yours == BASE + 2


async def test_nobody_gives_up_what_another_port_has(bench: NetworkBench) -> None:
    """RELEASE and DECLINE with somebody else's MAC address, from another port, change nothing."""
    victim, liar = await bench.guest(1), await bench.guest(2)
    await victim.get_address()
    liar.send_dhcp(Kind.RELEASE, mac=victim.mac, client=victim.address)
    liar.send_dhcp(Kind.DECLINE, mac=victim.mac, requested_address=victim.address)
    await liar.get_address()
    assert [lease.mac_address for lease in await bench.leases()] == ["02:00:00:00:00:01", "02:00:00:00:00:02"]


async def test_nobody_takes_what_another_device_has_by_its_name(bench: NetworkBench) -> None:
    """REQUESTs from another port that only say somebody's MAC address move no lease, and get no reserved address."""
    victim, liar = await bench.guest(1), await bench.guest(2)
    await victim.get_address()
    reserved = b"\x02" + bytes(4) + b"\x77"
    wanted = nets.Reservation(mac_address="02:00:00:00:00:77", address="10.0.2.9")
    await bench.networks.CreateReservation(nets.CreateReservationRequest(parent=LAN, reservation=wanted))
    liar.send_dhcp(Kind.REQUEST, mac=victim.mac, client=victim.address)
    liar.send_dhcp(Kind.DISCOVER, mac=reserved)
    liar.send_dhcp(Kind.REQUEST, mac=reserved, requested_address=BASE + 9)
    await liar.get_address()
    assert [(lease.address, lease.port) for lease in await bench.leases()] == [
        ("10.0.2.2/24", f"{SWITCH}/ports/p1"),
        ("10.0.2.3/24", f"{SWITCH}/ports/p2"),
    ]


async def test_a_name_belongs_to_who_had_it_first(bench: NetworkBench) -> None:
    """A device that says another's host name does not get the name, also when the first one renews."""
    victim, liar = await bench.guest(1), await bench.guest(2)
    await victim.get_address(host_name=b"db")
    await liar.get_address(host_name=b"db")
    victim.send_dhcp(Kind.REQUEST, client=victim.address, host_name=b"db")
    await victim.dhcp()
    _, _, records = await liar.ask("db.lab", 1)
    assert records == [("db.lab", 1, bytes([10, 0, 2, 2]))]


async def test_the_port_s_end_frees_what_was_allocated_to_it(bench: NetworkBench) -> None:
    """DHCP's lease runs on without a port; a device that comes back elsewhere keeps its address."""
    guest = await bench.guest(1)
    await guest.get_address()
    await bench.running.ports.DeletePort(pb.DeletePortRequest(name=f"{SWITCH}/ports/p1"))
    assert [(lease.address, lease.port) for lease in await bench.leases()] == [("10.0.2.2/24", "")]
    moved = await bench.guest(1, port="p9")
    await moved.get_address()
    assert [(lease.address, lease.port) for lease in await bench.leases()] == [("10.0.2.2/24", f"{SWITCH}/ports/p9")]


@pytest.mark.inside
async def test_nothing_is_promised_that_is_not_recorded(bench: NetworkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk refuses, a REQUEST is not answered; afterwards the device asks again and gets its address."""
    guest = await bench.guest(1)
    offer = await guest.discover()
    book = bench.running.service._networks.state("lan").book
    kept = book._keeper

    class Full:
        """A disk that is full."""

        def put(self, lease: Any, instead_of: int | None = None) -> None:
            """Refuse."""
            raise Unavailable("The disk is full.", reason="STORE_UNAVAILABLE")

    monkeypatch.setattr(book, "_keeper", Full())
    guest.send_dhcp(Kind.REQUEST, requested_address=offer.yours, server_identifier=ROUTER)
    guest.send_dhcp(Kind.INFORM, client=BASE + 50)
    assert (await guest.dhcp()).yours == 0, "the answer is to INFORM, so REQUEST had none"
    assert await bench.leases() == []
    monkeypatch.setattr(book, "_keeper", kept)
    guest.send_dhcp(Kind.REQUEST, requested_address=offer.yours, server_identifier=ROUTER)
    assert ((await guest.dhcp()).kind, len(await bench.leases())) == (Kind.ACK, 1)


async def test_source_guard_knows_what_was_given(bench: NetworkBench) -> None:
    """At a guarded port only addresses that a lease gives to it pass; an address of another port's does not."""
    guest, other = await bench.guest(1), await bench.guest(2)
    port = f"{SWITCH}/ports/p1"
    guarded = policies_pb2.PortPolicy(name=f"{port}/policy", security=policies_pb2.SecurityPolicy(source_guard=True))
    stub = policies_pb2_grpc.PoliciesStub(bench.running.channel)
    await stub.UpdatePortPolicy(policies_pb2.UpdatePortPolicyRequest(policy=guarded))
    await other.get_address()
    await guest.get_address()
    guest.ping(ROUTER)
    assert (await guest.icmp())[0] == ROUTER
    mine, guest.address = guest.address, other.address
    guest.ping(ROUTER)
    guest.address = mine
    guest.ping(ROUTER, data=b"mine")
    assert (await guest.icmp())[1].body == b"mine"
    assert await bench.drops(port) == {"SOURCE_GUARD": 1}
    await bench.networks.DeleteLease(nets.DeleteLeaseRequest(name=f"{LAN}/leases/10-0-2-3"))
    guest.ping(ROUTER)
    guest.send_dhcp(Kind.DISCOVER)
    await guest.dhcp()
    assert await bench.drops(port) == {"SOURCE_GUARD": 2}


async def test_a_guest_behind_a_trunk_is_served_in_its_vlan(start: Any, device: Any) -> None:
    """Tagged frames of a trunk reach the VLAN's router, and lease and source guard know the trunk's port."""
    bench = await NetworkBench(await start(), device).open()
    group = await bench.group("t", 0)
    stub = policies_pb2_grpc.PoliciesStub(bench.running.channel)
    trunk = policies_pb2.PortGroupPolicy(
        name=f"{group}/policy",
        trunk=uplinks_pb2.VlanTrunk(ranges=[uplinks_pb2.VlanRange(first_vlan_id=7, last_vlan_id=7)]),
        security=policies_pb2.SecurityPolicy(source_guard=True),
    )
    await stub.UpdatePortGroupPolicy(policies_pb2.UpdatePortGroupPolicyRequest(policy=trunk))
    await bench.create(vlan_id=7)
    guest = await bench.guest(1, group=group)
    guest.tci = 7
    await guest.get_address()
    guest.ping(ROUTER)
    assert (await guest.icmp())[0] == ROUTER
    assert [lease.port for lease in await bench.leases()] == [f"{SWITCH}/ports/p1"]
    allocate = nets.AllocateAddressRequest(parent=LAN, port=f"{SWITCH}/ports/p1", address="10.0.2.9")
    await bench.networks.AllocateAddress(allocate)
    guest.address = BASE + 9
    guest.ping(ROUTER)
    assert (await guest.icmp())[0] == ROUTER
