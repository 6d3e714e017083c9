"""`lamina vswitch networks`, `leases`, `reserve`, `dns` and `neighbors`: IP on top of a switch."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.client.resource_names import full_name
from lamina_cli.commands.vswitch.names import part_name, port_name, switch_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.vswitch.v1.networks_pb2_grpc import NetworksStub

NS = 10**9
MODES = ("bridge", "nat", "host-only")
TYPES = ("a", "aaaa", "cname", "srv", "ptr")


def configure(verbs: Any) -> None:
    """Adds the verbs."""
    command(verbs.add_parser("networks", help="list networks"), networks, lists=True)
    _configure_create(verbs)
    for verb, text, work in (
        ("leases", "list the addresses of a network that are out", leases),
        ("reservations", "list the addresses of a network that are kept for devices", reservations),
        ("dns", "list the names of a network", dns),
        ("neighbors", "show the ARP table of a network's router", neighbors),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("network", help="name of the network")
        command(sub, work, lists=True)
    sub = verbs.add_parser("delete-network", help="delete a network with its router, leases and names")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("--force", action="store_true", help="also while addresses are out")
    command(sub, delete_network)
    sub = verbs.add_parser("reserve", help="keep an address for a device")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("mac", help="MAC address of the device")
    sub.add_argument("address", help="address to keep")
    sub.add_argument("--host-name", default="", help="name that DNS gives the address")
    command(sub, reserve)
    sub = verbs.add_parser("unreserve", help="give up the address that is kept for a device")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("mac", help="MAC address of the device")
    command(sub, unreserve)
    sub = verbs.add_parser("allocate", help="take an address for a port whose device is configured by hand")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("port", help="SWITCH/PORT or the full name")
    sub.add_argument("--address", default="", help="address that is wanted (default: the next free one)")
    sub.add_argument("--mac", default="", help="MAC address of the device")
    sub.add_argument("--host-name", default="", help="name that DNS gives the address")
    command(sub, allocate, lists=True)
    sub = verbs.add_parser("end-lease", help="end a lease at once")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("address", help="its address")
    command(sub, end_lease)
    sub = verbs.add_parser("set-name", help="set the answers of a DNS name, or remove them by giving none")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("name", help="the name, without a final dot")
    sub.add_argument("type", choices=TYPES, help="type of the answers")
    sub.add_argument("answers", nargs="*", help="the answers")
    sub.add_argument("--source", default="cli", help="who sets it (default cli)")
    command(sub, set_name)


def _configure_create(verbs: Any) -> None:
    sub = verbs.add_parser("create-network", help="give a VLAN of a switch IP: a router, addresses, names")
    sub.add_argument("switch", help="name of the switch")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("subnet", help="its subnet, for example 10.0.2.0/24")
    sub.add_argument("--mode", choices=MODES, default="nat", help="how it meets the outside (default nat)")
    sub.add_argument("--vlan", type=parse.INT32, default=0, help="VLAN, 0 for none (default 0)")
    sub.add_argument("--gateway", default="", help="address of the router (default: the first)")
    sub.add_argument("--no-dhcp", action="store_true", help="without a DHCP server")
    sub.add_argument("--domain", default="", help="domain to tell, and for which the DNS responder alone answers")
    sub.add_argument("--no-dns", action="store_true", help="without a DNS responder")
    sub.add_argument(
        "--ask", action="append", default=[], metavar="ADDRESS", help="DNS server for other names; repeatable"
    )
    ways = sub.add_mutually_exclusive_group()
    ways.add_argument("--kernel", action="store_true", help="a NAT network goes out by the kernel of the machine")
    ways.add_argument("--uplink", default="", metavar="SWITCH/UPLINK", help="where a NAT network has its outside")
    sub.add_argument("--outside", default="", metavar="ADDRESS/LENGTH", help="its own address at that uplink")
    sub.add_argument("--outside-gateway", default="", metavar="ADDRESS", help="gateway to everything else there")
    command(sub, create_network, lists=True)


def _stub(client: Client) -> NetworksStub:
    from lamina.vswitch.v1 import networks_pb2_grpc

    return client.stub("vswitch", networks_pb2_grpc.NetworksStub)


async def _network_name(client: Client, network: str) -> str:
    return await full_name(client, "networks", network, "vswitch")


async def networks(client: Client, args: argparse.Namespace) -> None:
    """Lists networks."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    printing.show(
        await collect(_stub(client).ListNetworks, pb.ListNetworksRequest(), "networks"),
        ("NETWORK", "MODE", "SWITCH", "VLAN", "SUBNET", "GATEWAY", "DHCP", "DNS", "LEASES"),
        lambda item: (
            last(item.name),
            word(pb.Network.Mode, item.mode),
            last(item.switch),
            item.vlan_id or "-",
            item.subnet or "-",
            item.gateway_address or "-",
            "yes" if item.HasField("dhcp") else "no",
            "yes" if item.HasField("dns") else "no",
            item.lease_count,
        ),
        form=args.output,
    )


async def create_network(client: Client, args: argparse.Namespace) -> None:
    """Creates a network."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    wanted = pb.Network(
        mode=pb.Network.Mode.Value(f"MODE_{args.mode.upper().replace('-', '_')}"),
        switch=await switch_name(client, args.switch),
        vlan_id=args.vlan,
        subnet=args.subnet,
        gateway_address=args.gateway,
    )
    if args.mode != "bridge" and not args.no_dhcp:
        wanted.dhcp.CopyFrom(pb.DhcpServer(domain=args.domain))
    if args.mode != "bridge" and not args.no_dns:
        domains = [args.domain] if args.domain else []
        wanted.dns.CopyFrom(pb.DnsResponder(domains=domains, upstream_addresses=args.ask))
    if args.kernel:
        wanted.nat.outside = pb.NatSettings.OUTSIDE_KERNEL
    elif args.uplink or args.outside or args.outside_gateway:
        settings = pb.NatSettings(
            outside=pb.NatSettings.OUTSIDE_UPLINK,
            uplink=await part_name(client, "uplinks", args.uplink),
            outside_address=args.outside,
            outside_gateway_address=args.outside_gateway,
        )
        wanted.nat.CopyFrom(settings)
    made = await _stub(client).CreateNetwork(pb.CreateNetworkRequest(network_id=args.network, network=wanted))
    if args.output == "json":
        printing.as_json(made)
    else:
        print(made.name)


async def delete_network(client: Client, args: argparse.Namespace) -> None:
    """Deletes a network."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    name = await _network_name(client, args.network)
    await _stub(client).DeleteNetwork(pb.DeleteNetworkRequest(name=name, force=args.force))
    print(f"deleted {name}")


async def leases(client: Client, args: argparse.Namespace) -> None:
    """Lists leases."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    request = pb.ListLeasesRequest(parent=await _network_name(client, args.network))
    _show_leases(await collect(_stub(client).ListLeases, request, "leases"), args.output)


def _show_leases(found: Any, form: str) -> None:
    from lamina.vswitch.v1 import networks_pb2 as pb

    printing.show(
        found,
        ("ADDRESS", "MAC", "PORT", "NAME", "FROM", "ENDS"),
        lambda item: (
            item.address,
            item.mac_address or "-",
            last(item.port) or "-",
            item.host_name or "-",
            word(pb.Lease.Origin, item.origin),
            f"at {item.end_time_ns // NS} s" if item.end_time_ns else "with its port",
        ),
        form=form,
    )


async def allocate(client: Client, args: argparse.Namespace) -> None:
    """Takes an address for a port."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    request = pb.AllocateAddressRequest(
        parent=await _network_name(client, args.network),
        port=await port_name(client, args.port),
        address=args.address,
        mac_address=args.mac,
        host_name=args.host_name,
    )
    _show_leases([await _stub(client).AllocateAddress(request)], args.output)


async def end_lease(client: Client, args: argparse.Namespace) -> None:
    """Ends a lease."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    address = args.address.partition("/")[0].replace(".", "-")
    name = f"{await _network_name(client, args.network)}/leases/{address}"
    await _stub(client).DeleteLease(pb.DeleteLeaseRequest(name=name))
    print(f"ended {name}")


async def reservations(client: Client, args: argparse.Namespace) -> None:
    """Lists reservations."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    request = pb.ListReservationsRequest(parent=await _network_name(client, args.network))
    printing.show(
        await collect(_stub(client).ListReservations, request, "reservations"),
        ("ADDRESS", "MAC", "NAME"),
        lambda item: (item.address, item.mac_address, item.host_name or "-"),
        form=args.output,
    )


async def reserve(client: Client, args: argparse.Namespace) -> None:
    """Keeps an address for a device."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    wanted = pb.Reservation(mac_address=args.mac, address=args.address, host_name=args.host_name)
    request = pb.CreateReservationRequest(parent=await _network_name(client, args.network), reservation=wanted)
    print((await _stub(client).CreateReservation(request)).name)


async def unreserve(client: Client, args: argparse.Namespace) -> None:
    """Gives up a kept address."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    digits = args.mac.lower().replace(":", "").replace("-", "")
    name = f"{await _network_name(client, args.network)}/reservations/{digits}"
    await _stub(client).DeleteReservation(pb.DeleteReservationRequest(name=name))
    print(f"deleted {name}")


async def dns(client: Client, args: argparse.Namespace) -> None:
    """Lists names."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    request = pb.ListDnsRecordsRequest(parent=await _network_name(client, args.network))
    printing.show(
        await collect(_stub(client).ListDnsRecords, request, "dns_records"),
        ("NAME", "TYPE", "ANSWERS", "TTL", "SOURCE"),
        lambda item: (
            item.dns_name,
            word(pb.DnsRecord.Type, item.type).upper(),
            ", ".join(item.answers),
            f"{item.ttl_seconds} s" if item.ttl_seconds else "-",
            item.source,
        ),
        form=args.output,
    )


async def set_name(client: Client, args: argparse.Namespace) -> None:
    """Sets or removes the answers of a name."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    kind = pb.DnsRecord.Type.Value(f"TYPE_{args.type.upper()}")
    record = pb.DnsRecord(dns_name=args.name, type=kind, answers=args.answers)
    request = pb.UpdateDnsRecordsRequest(
        parent=await _network_name(client, args.network), dns_records=[record], source=args.source
    )
    done = await _stub(client).UpdateDnsRecords(request)
    print(f"{args.source} has {done.record_count} sets")


async def neighbors(client: Client, args: argparse.Namespace) -> None:
    """Shows an ARP table."""
    from lamina.vswitch.v1 import networks_pb2 as pb

    request = pb.ListNeighborsRequest(parent=await _network_name(client, args.network))
    printing.show(
        await collect(_stub(client).ListNeighbors, request, "neighbors"),
        ("ADDRESS", "MAC", "STATE", "AGE"),
        lambda item: (
            item.address,
            item.mac_address or "-",
            word(pb.Neighbor.State, item.state),
            f"{item.age_ns // NS} s",
        ),
        form=args.output,
    )
