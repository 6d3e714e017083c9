"""A modelled guest: a device behind a port that speaks ARP, ICMP, DHCP and DNS, by the codecs of the stack."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST, BROADCAST_MAC
from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.network.dhcp import message as wire
from lamina_vswitch.domain.network.dhcp.message import Kind, Option
from lamina_vswitch.domain.network.dns import name as names

XID = 0x1234


class Guest:
    """A guest at an attached device. `address` and `router` are 0 until they are given; `tci` is its tag."""

    def __init__(self, device: Any, mac: bytes) -> None:
        self.device, self.mac = device, mac
        self.address = self.router = 0
        self.tci: int | None = None
        self.router_mac = BROADCAST_MAC
        self.seen: list[bytes] = []
        self._waiting: deque[bytes] = deque()

    # Frames

    def send(self, dst: bytes, ethertype: int, payload: bytes) -> None:
        """Send one frame."""
        self.device.send([ethernet.build(dst, self.mac, ethertype, payload, self.tci)])

    async def wait(self, wanted: Callable[[ethernet.Frame], Any]) -> Any:
        """Return the first thing that is not None that `wanted` makes of a frame; answer ARP for the own address."""
        async with asyncio.timeout(10):
            while True:
                while not self._waiting:
                    self._waiting.extend((await self.device.next()).frames.frames)
                frame = ethernet.parse(self._waiting.popleft())
                assert isinstance(frame, ethernet.Frame)
                self.seen.append(frame.payload)
                self.answer_arp(frame)
                if (found := wanted(frame)) is not None:
                    return found

    def take_waiting(self) -> list[bytes]:
        """Return the frames that came and were not looked at, for who reads the device from now on."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def answer_arp(self, frame: ethernet.Frame) -> None:
        """Answer a question for the own address, if a frame is one."""
        packet = arp.parse(frame.payload) if frame.ethertype == ethernet.ARP else None
        if isinstance(packet, arp.ArpPacket) and packet.operation == arp.REQUEST and packet.target == self.address:
            self.send(packet.sender_mac, ethernet.ARP, arp.reply_to(packet, self.mac))

    # Packets

    def send_packet(self, packet: ipv4.Packet) -> None:
        """Send a packet to the router, which has to be known."""
        self.send(self.router_mac, ethernet.IPV4, ipv4.build(packet))

    async def packet(self, wanted: Callable[[ipv4.Packet], Any]) -> Any:
        """Return the first thing that is not None that `wanted` makes of a packet."""

        def of(frame: ethernet.Frame) -> Any:
            packet = ipv4.parse(frame.payload) if frame.ethertype == ethernet.IPV4 else None
            return wanted(packet) if isinstance(packet, ipv4.Packet) else None

        return await self.wait(of)

    async def resolve_mac(self, address: int) -> bytes:
        """Return who answers ARP for an address."""
        self.send(BROADCAST_MAC, ethernet.ARP, arp.request(self.mac, self.address, address))

        def of(frame: ethernet.Frame) -> bytes | None:
            packet = arp.parse(frame.payload) if frame.ethertype == ethernet.ARP else None
            fits = isinstance(packet, arp.ArpPacket) and packet.operation == arp.REPLY and packet.sender == address
            return packet.sender_mac if fits and isinstance(packet, arp.ArpPacket) else None

        found = await self.wait(of)
        assert isinstance(found, bytes)
        return found

    async def use_router(self, router: int) -> None:
        """Find the router by ARP."""
        self.router = router
        self.router_mac = await self.resolve_mac(router)

    def ping(self, to: int, *, ttl: int = 64, data: bytes = b"ping", **fields: Any) -> None:
        """Send an echo request through the router."""
        payload = icmp.build(icmp.echo_request(7, 1, data))
        self.send_packet(ipv4.Packet(self.address, to, ipv4.ICMP, payload, ttl, **fields))

    async def icmp(self) -> tuple[int, icmp.Message]:
        """Return sender and message of the next ICMP message to the guest."""

        def of(packet: ipv4.Packet) -> Any:
            message = icmp.parse(packet.payload) if packet.protocol == ipv4.ICMP else None
            fits = isinstance(message, icmp.Message) and packet.dst == self.address
            return (packet.src, message) if fits else None

        found: tuple[int, icmp.Message] = await self.packet(of)
        return found

    # DHCP

    def send_dhcp(self, kind: Kind, *, mac: bytes = b"", client: int = 0, **options: Any) -> None:
        """Send a DHCP message; `options` by their names in lower case, addresses as integers."""
        values = {int(Option.MESSAGE_TYPE): bytes([kind])}
        for name, value in options.items():
            values[Option[name.upper()]] = wire.addresses(value) if isinstance(value, int) else value
        payload = wire.build(wire.Message(wire.BOOTREQUEST, XID, mac or self.mac, values, client=client))
        body = udp.build(client, BROADCAST, udp.Datagram(wire.CLIENT_PORT, wire.SERVER_PORT, payload))
        self.send(BROADCAST_MAC, ethernet.IPV4, ipv4.build(ipv4.Packet(client, BROADCAST, ipv4.UDP, body)))

    async def dhcp(self, mac: bytes = b"") -> wire.Message:
        """Return the next DHCP reply to the guest, or to another MAC address that it says it has."""

        def of(packet: ipv4.Packet) -> wire.Message | None:
            datagram = udp.parse(packet.src, packet.dst, packet.payload) if packet.protocol == ipv4.UDP else None
            if not isinstance(datagram, udp.Datagram) or datagram.destination_port != wire.CLIENT_PORT:
                return None
            message = wire.parse(datagram.payload)
            if not isinstance(message, wire.Message) or message.op != wire.BOOTREPLY:
                return None
            return message if message.mac == (mac or self.mac) else None

        found = await self.packet(of)
        assert isinstance(found, wire.Message)
        return found

    async def discover(self, **options: Any) -> wire.Message:
        """Ask for an offer, and return it."""
        self.send_dhcp(Kind.DISCOVER, **options)
        return await self.dhcp(options.get("mac", b""))

    async def get_address(self, **options: Any) -> wire.Message:
        """Get an address by DHCP, take it, find the router, and return what the server told."""
        offer = await self.discover(**options)
        assert offer.kind is Kind.OFFER
        server = offer.address(Option.SERVER_IDENTIFIER)
        self.send_dhcp(Kind.REQUEST, requested_address=offer.yours, server_identifier=server, **options)
        ack = await self.dhcp()
        assert ack.kind is Kind.ACK and ack.yours == offer.yours
        self.address = ack.yours
        await self.use_router(ack.address(Option.ROUTER))
        return ack

    # DNS

    async def ask(self, name: str, kind: int, *, size: int = 0) -> tuple[int, int, list[tuple[str, int, bytes]]]:
        """Ask the router for a name; return flags, length of the answer, and its records as (name, type, data)."""
        question = struct.pack("!HHHHHH", 9, 0x0100, 1, 0, 0, 1 if size else 0)
        question += names.write(name, {}, 12) + struct.pack("!HH", kind, 1)
        question += b"\0" + struct.pack("!HHIH", 41, size, 0, 0) if size else b""
        body = udp.build(self.address, self.router, udp.Datagram(40000, 53, question))
        self.send_packet(ipv4.Packet(self.address, self.router, ipv4.UDP, body))

        def of(packet: ipv4.Packet) -> bytes | None:
            datagram = udp.parse(packet.src, packet.dst, packet.payload) if packet.protocol == ipv4.UDP else None
            fits = isinstance(datagram, udp.Datagram) and datagram.destination_port == 40000
            return datagram.payload if fits and isinstance(datagram, udp.Datagram) else None

        return read_answer(await self.packet(of))


def read_answer(data: bytes) -> tuple[int, int, list[tuple[str, int, bytes]]]:
    """Return flags, length and records of an answer; names within the data are written out as text."""
    _, flags, questions, answers, authority, _ = struct.unpack_from("!HHHHHH", data)
    place, records = 12, []
    for _ in range(questions):
        read = names.read(data, place)
        assert not isinstance(read, Refusal)
        place = read[1] + 4
    for _ in range(answers + authority):
        read = names.read(data, place)
        assert not isinstance(read, Refusal)
        owner, place = read
        kind, _, _, length = struct.unpack_from("!HHIH", data, place)
        place += 10
        value = data[place : place + length]
        if kind in (5, 12):
            target = names.read(data, place)
            assert not isinstance(target, Refusal)
            value = target[0].encode()
        records.append((owner, kind, value))
        place += length
    return flags, len(data), records
