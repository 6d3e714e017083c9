"""AllocateAddress and names that callers tell: idempotency, refusals, revisions, pages, answers on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.network_bench import LAN, SECOND_NS, SWITCH, NetworkBench
from tests.integration.vswitch.refusals import refusal

A, AAAA, CNAME, SRV, PTR = (
    nets.DnsRecord.TYPE_A,
    nets.DnsRecord.TYPE_AAAA,
    nets.DnsRecord.TYPE_CNAME,
    nets.DnsRecord.TYPE_SRV,
    nets.DnsRecord.TYPE_PTR,
)


pytestmark = pytest.mark.parametrize("start", ["local"], indirect=True)


@pytest.fixture
async def bench(start: Any, device: Any) -> NetworkBench:
    """Returns a service with a switch and a network of six addresses."""
    bench = await NetworkBench(await start(), device).open()
    await bench.create(subnet="10.0.2.0/29")
    return bench


def record(name: str, kind: Any, *answers: str, ttl: int = 0) -> nets.DnsRecord:
    """Return a set of records."""
    return nets.DnsRecord(dns_name=name, type=kind, answers=answers, ttl_seconds=ttl)


async def tell(bench: NetworkBench, *records: nets.DnsRecord, **fields: Any) -> nets.UpdateDnsRecordsResponse:
    """Set records of the source `me`, unless told otherwise."""
    request = nets.UpdateDnsRecordsRequest(**{"parent": LAN, "source": "me", "dns_records": records, **fields})
    answer = await bench.networks.UpdateDnsRecords(request)
    assert isinstance(answer, nets.UpdateDnsRecordsResponse)
    return answer


async def listed(bench: NetworkBench) -> list[tuple[str, Any, list[str], str]]:
    """Return the names of the network."""
    found = await bench.networks.ListDnsRecords(nets.ListDnsRecordsRequest(parent=LAN))
    return [(each.dns_name, each.type, list(each.answers), each.source) for each in found.dns_records]


async def test_an_address_is_taken_for_a_port(bench: NetworkBench, manual_clock: Any) -> None:
    """The next free one, or the one that is wanted; the same call gives the same; the port's end ends them."""
    await bench.guest(1)
    port = f"{SWITCH}/ports/p1"
    request = nets.AllocateAddressRequest(parent=LAN, port=port, mac_address="02:00:00:00:00:01", host_name="web")
    lease = await bench.networks.AllocateAddress(request)
    assert lease == nets.Lease(
        name=f"{LAN}/leases/10-0-2-2",
        address="10.0.2.2/29",
        mac_address="02:00:00:00:00:01",
        port=port,
        host_name="web",
        origin=nets.Lease.ORIGIN_ALLOCATED,
        gateway_address="10.0.2.1",
        dns_addresses=["10.0.2.1"],
        mtu_bytes=1500,
    )
    assert await bench.networks.AllocateAddress(request) == lease
    request.host_name, request.address = "db", "10.0.2.5"
    assert (await bench.networks.AllocateAddress(request)).address == "10.0.2.5/29"
    assert [(name, answers) for name, kind, answers, _ in await listed(bench) if kind == A] == [
        ("db.lab", ["10.0.2.5"]),
        ("web.lab", ["10.0.2.2"]),
    ]
    assert len((await bench.networks.ListLeases(nets.ListLeasesRequest(parent=LAN, page_size=1))).leases) == 1
    await bench.running.ports.DeletePort(pb.DeletePortRequest(name=port))
    assert await bench.leases() == [] == await listed(bench)
    await bench.guest(2)
    request = nets.AllocateAddressRequest(parent=LAN, port=f"{SWITCH}/ports/p2")
    assert (await bench.networks.AllocateAddress(request)).address == "10.0.2.3/29"
    await manual_clock.advance(60 * SECOND_NS)
    request.host_name = "again"
    assert (await bench.networks.AllocateAddress(request)).address == "10.0.2.2/29"


async def test_an_address_may_be_refused(bench: NetworkBench) -> None:
    """Taken, outside, for a port elsewhere, or none left; DHCP and allocations do not take each other's."""
    guest = await bench.guest(1)
    await guest.get_address()
    await bench.guest(2)
    far = await bench.group("far", 7)
    await bench.guest(3, group=far)
    ask, request = bench.networks.AllocateAddress, nets.AllocateAddressRequest(parent=LAN, port=f"{SWITCH}/ports/p2")
    for taken in ("10.0.2.1", "10.0.2.2"):
        request.address = taken
        assert await refusal(ask(request)) == ("ALREADY_EXISTS", "ADDRESS_TAKEN")
        request.mac_address = "02:00:00:00:00:01"
    for outside in ("10.0.2.7", "10.0.3.1", "10.0.2.0", "x"):
        request.address = outside
        assert await refusal(ask(request)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    request.address, request.mac_address = "", ""
    for port in ("p3", "router.lan"):
        request.port = f"{SWITCH}/ports/{port}"
        assert await refusal(ask(request)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    request.port = f"{SWITCH}/ports/none"
    assert await refusal(ask(request)) == ("NOT_FOUND", "PORT_UNKNOWN")
    request.port = f"{SWITCH}/ports/p2"
    request.host_name = "-no"
    assert await refusal(ask(request)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    for number in range(4):
        request.host_name = f"h{number}"
        await ask(request)
    request.host_name = "h9"
    assert await refusal(ask(request)) == ("RESOURCE_EXHAUSTED", "ADDRESSES_EXHAUSTED")
    late = await bench.guest(4)
    late.send_dhcp(1)  # type: ignore[arg-type]
    late.address = 0x0A000203
    await late.use_router(0x0A000201)
    assert await bench.drops() == {"DHCP_EXHAUSTED": 1}


async def test_names_change_by_revision_and_source(bench: NetworkBench) -> None:
    """An old revision changes nothing, an empty set removes, `replace_all` removes the rest, names have one owner."""
    one = await tell(bench, record("a.lab", A, "10.0.2.5"), record("b.lab", A, "10.0.2.6"), revision=5)
    assert (one.revision, one.record_count) == (5, 2)
    old = await tell(bench, record("a.lab", A, "10.9.9.9"), revision=5)
    assert (old.revision, old.record_count) == (5, 2)
    assert (await listed(bench))[0] == ("a.lab", A, ["10.0.2.5"], "me")
    owned = tell(bench, record("c.lab", A, "10.0.2.3"), record("a.lab", AAAA, "fd00::1"), source="you")
    assert await refusal(owned) == ("FAILED_PRECONDITION", "NAME_OWNED")
    assert len(await listed(bench)) == 2
    await tell(bench, record("c.lab", A, "10.0.2.3"), source="you")
    await tell(bench, record("b.lab", A), revision=6)
    new = await tell(bench, record("d.lab", SRV, "1 2 80 a.lab"), revision=7, replace_all=True)
    assert (new.revision, new.record_count) == (7, 1)
    assert [(name, source) for name, _, _, source in await listed(bench)] == [("c.lab", "you"), ("d.lab", "me")]
    many = [record(f"n{number}.lab", A, "10.0.2.5") for number in range(1001)]
    assert await refusal(tell(bench, *many)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    for bad in (
        record("A.lab", A, "10.0.2.5"),
        record("a..lab", A, "10.0.2.5"),
        record("e.lab", A, "10.0.2"),
        record("e.lab", AAAA, "10.0.2.5"),
        record("e.lab", CNAME, "a.lab", "b.lab"),
        record("e.lab", SRV, "1 2 a.lab"),
        record("e.lab", PTR, "a.lab"),
        record("e.lab", A, *["10.0.2.5"] * 65),
        record("e.lab", A, "10.0.2.5", ttl=86401),
        record("e.lab", nets.DnsRecord.TYPE_UNSPECIFIED, "10.0.2.5"),
    ):
        assert await refusal(tell(bench, bad)) == ("INVALID_ARGUMENT", "REQUEST_INVALID"), bad
    for source in ("lease", "", "No"):
        assert await refusal(tell(bench, source=source)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_names_are_listed_by_page(bench: NetworkBench) -> None:
    """Ordered by name, then type; every set once, whatever characters its name has."""
    names = ["*.a.lab", "_tcp.lab", "a.lab", "a-b.lab", "x" * 63 + ".lab"]
    await tell(
        bench, *(record(name, kind, answer) for name in names for kind, answer in ((AAAA, "::1"), (A, "1.2.3.4")))
    )
    found, token = [], ""
    while True:
        request = nets.ListDnsRecordsRequest(parent=LAN, page_size=3, page_token=token)
        page = await bench.networks.ListDnsRecords(request)
        found += [(each.dns_name, each.type) for each in page.dns_records]
        token = page.next_page_token
        if not token:
            break
    assert found == [(name, kind) for name in sorted(names) for kind in (A, AAAA)]


async def test_answers_take_turns_and_are_cut_where_they_do_not_fit(bench: NetworkBench) -> None:
    """Each question begins with the next answer; too many for UDP are left out with the truncated flag."""
    guest = await bench.guest(1)
    await guest.get_address()
    srv = record("_web._tcp.lab", SRV, "1 2 80 a.lab")
    await tell(bench, record("w.lab", A, "10.0.2.5", "10.0.2.6"), srv, record("v6.lab", AAAA, "fd00::1", ttl=9))
    firsts = [(await guest.ask("w.lab", 1))[2][0][2][3] for _ in range(4)]
    assert firsts == [5, 6, 5, 6]
    assert (await guest.ask("_web._tcp.lab", 33))[2] == [
        ("_web._tcp.lab", 33, b"\0\1\0\2\0\x50" + b"\1a\3lab\0"),
    ]
    assert (await guest.ask("v6.lab", 28))[2] == [("v6.lab", 28, bytes.fromhex("fd" + "00" * 14 + "01"))]
    await tell(bench, record("big.lab", A, *[f"10.1.0.{number}" for number in range(64)]))
    flags, size, records = await guest.ask("big.lab", 1)
    assert (bool(flags & 0x0200), records) == (True, []) and size <= 512
    flags, size, records = await guest.ask("big.lab", 1, size=4096)
    assert (bool(flags & 0x0200), len(records)) == (False, 64) and size <= 1232
