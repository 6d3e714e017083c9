"""Frames from what people type to `lamina vswitch`: in hexadecimal, or by what they carry, with lengths and sums."""

from __future__ import annotations

import argparse

from lamina_cli.input import parse

MIN_FRAME_BYTES = 60
"""What Ethernet pads a frame to. Source: IEEE 802.3, 3.2.8."""
_ARP, _IPV4 = 0x0806, 0x0800
_SEPARATORS = str.maketrans("", "", " :-\n\t\r")
_BUILT = ("to", "vlan", "type", "arp", "ping", "udp", "tcp")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which frame is meant."""
    parser.add_argument("frame", nargs="?", default="", help="the frame in hexadecimal, as Wireshark copies it")
    made = parser.add_argument_group("instead of hexadecimal, a frame of 60 bytes or more")
    made.add_argument("--from", dest="source", type=_mac, metavar="MAC", help="source address; makes such a frame")
    made.add_argument("--to", type=_mac, metavar="MAC", help="destination address (default ff:ff:ff:ff:ff:ff)")
    made.add_argument("--vlan", type=parse.whole(0, 4095), metavar="ID", help="802.1Q tag with this VLAN id")
    kinds = made.add_mutually_exclusive_group()
    kinds.add_argument("--type", type=_ethertype, metavar="TYPE", help="EtherType, and zeros (default 0x88b5)")
    kinds.add_argument("--arp", nargs=2, type=_ipv4, metavar=("OWN", "WANTED"), help="asks who has an address")
    kinds.add_argument("--ping", nargs=2, type=_ipv4, metavar=("FROM", "TO"), help="ICMP echo request")
    pair = ("FROM:PORT", "TO:PORT")
    kinds.add_argument("--udp", nargs=2, type=_endpoint, metavar=pair, help="UDP datagram, 8 bytes of data")
    kinds.add_argument("--tcp", nargs=2, type=_endpoint, metavar=pair, help="TCP segment that asks for a connection")


def frame_of(args: argparse.Namespace) -> bytes:
    """Returns the frame that the arguments say.

    Raises:
        InvalidArgument: `FRAME_MALFORMED`, it is not hexadecimal, said twice or not at all.
    """
    from lamina_kit.errors import InvalidArgument

    described = [f"--{name}" for name in _BUILT if getattr(args, name) is not None]
    if args.source is None:
        if described or not args.frame:
            raise InvalidArgument(
                f"{described[0]} describes a frame without a source" if described else "there is no frame",
                reason="FRAME_MALFORMED",
                next_step="give it in hexadecimal, or --from MAC with what it carries, for example "
                "--from 02:00:00:00:00:01 --arp 10.0.2.15 10.0.2.1",
            )
        return frame_bytes(args.frame)
    if args.frame:
        raise InvalidArgument(
            "the frame is given twice, in hexadecimal and by --from",
            reason="FRAME_MALFORMED",
            next_step="leave one of them out",
        )
    return _built(args)


def frame_bytes(text: str) -> bytes:
    """Returns a frame given in hexadecimal; blanks, colons and hyphens between digits are ignored."""
    from lamina_kit.errors import InvalidArgument, Violation

    try:
        return bytes.fromhex(text.translate(_SEPARATORS).removeprefix("0x"))
    except ValueError as error:
        raise InvalidArgument(
            "the frame is not hexadecimal",
            reason="FRAME_MALFORMED",
            violations=[Violation("frame", str(error).replace(" found in fromhex() arg", ""))],
            next_step="give the bytes as pairs of hexadecimal digits, for example ffffffffffff0200000000010806",
        ) from error


def _built(args: argparse.Namespace) -> bytes:
    from lamina_net.packets import arp, ethernet
    from lamina_net.packets.address import BROADCAST_MAC

    kind, payload = 0x88B5 if args.type is None else args.type, b""
    if args.arp is not None:
        kind, payload = _ARP, arp.request(args.source, *args.arp)
    elif args.ping is not None or args.udp is not None or args.tcp is not None:
        kind, payload = _IPV4, _packet(args)
    made = ethernet.build(args.to or BROADCAST_MAC, args.source, kind, payload, args.vlan)
    return made.ljust(MIN_FRAME_BYTES, b"\0")


def _packet(args: argparse.Namespace) -> bytes:
    from lamina_net.packets import icmp, ipv4, udp
    from lamina_net.tcp import segment

    if args.ping is not None:
        src, dst = args.ping
        return ipv4.build(ipv4.Packet(src, dst, ipv4.ICMP, icmp.build(icmp.echo_request(1, 1, bytes(8)))))
    (src, src_port), (dst, dst_port) = args.udp or args.tcp
    if args.udp is not None:
        datagram = udp.Datagram(src_port, dst_port, bytes(8))
        return ipv4.build(ipv4.Packet(src, dst, ipv4.UDP, udp.build(src, dst, datagram)))
    opening = segment.Segment(src_port, dst_port, 0, 0, segment.SYN, 65535, options=segment.Options(mss=1460))
    return ipv4.build(ipv4.Packet(src, dst, ipv4.TCP, segment.build(src, dst, opening)))


def _mac(text: str) -> bytes:
    parts = text.replace("-", ":").split(":")
    if len(parts) != 6 or any(len(part) != 2 or not _is_hex(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a MAC address such as 02:00:00:00:00:01")
    return bytes.fromhex("".join(parts))


def _is_hex(text: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in text)


def _ethertype(text: str) -> int:
    value = parse.address(text)
    if value > 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} does not fit 16 bits")
    return value


def _ipv4(text: str) -> int:
    from lamina_net.packets.address import parse_address

    address = parse_address(text)
    if address is None:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an IPv4 address such as 10.0.2.15")
    return address


def _endpoint(text: str) -> tuple[int, int]:
    address, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not ADDRESS:PORT, such as 10.0.2.15:80")
    return _ipv4(address), int(port)
