"""Every parser of bytes and texts that strangers send, each with what has to hold of whatever it is given.

`./run fuzz` looks for bytes that break one, guided by coverage; `test_parsers.py` tries seeds and changed seeds. A
check takes any bytes and fails where the parser raises what it does not promise, or breaks what its docstring says.
Parsers with a state are in `machines.py`. What is not here: readers of the machine's own files (`/proc`, `/sys`),
which nobody else writes, and protobuf's own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from tests.property.fuzz import machines
from tests.property.fuzz.seeds import ELF, FRAMES, MANIFEST, PACKETS, PCAP, PCAPNG, QUESTION

from lamina_container_runtime.domain import elf as program
from lamina_container_runtime.domain.containers import log_line
from lamina_container_runtime.domain.images import oci_document
from lamina_hardware.contexts import state as context_state
from lamina_hardware.domain.apic import state as apic_state
from lamina_hardware.domain.nic import descriptors
from lamina_hypervisor.domain.boot import elf as kernel
from lamina_kit.errors import InvalidArgument, LaminaError
from lamina_kit.telemetry import trace
from lamina_net.offload import headers
from lamina_net.packets import address, arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.refusal import Refusal
from lamina_net.tcp import segment
from lamina_orchestrator.domain.kinds import quantity, timestamps
from lamina_orchestrator.domain.kinds.kinds import KINDS
from lamina_orchestrator.domain.objects import manifest, selectors
from lamina_vswitch.domain.backend import definition as backends
from lamina_vswitch.domain.backend.address import SocketAddress, parse_address
from lamina_vswitch.domain.backend.capture_reader import CaptureReader, Malformed
from lamina_vswitch.domain.backend.deframer import LENGTH_BYTES, Deframer, framed
from lamina_vswitch.domain.backend.vnet import LAYOUT, from_kernel, to_kernel
from lamina_vswitch.domain.capture.expression import compile_filter
from lamina_vswitch.domain.frames import header as frame
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.packets import packet as nat
from lamina_vswitch.domain.network.dhcp import message as dhcp
from lamina_vswitch.domain.network.dns import message as dns
from lamina_vswitch.domain.network.dns import name as names
from lamina_vswitch.domain.offload import columns
from lamina_vswitch.domain.offload.egress import finished
from lamina_vswitch.domain.offload.features import PLAIN
from lamina_vswitch.domain.offload.ingress import MOST_PIECES, admitted
from lamina_vswitch.domain.overlay import vxlan
from lamina_vswitch.domain.policy import guards
from lamina_vswitch.domain.port import ring_layout


class Parser(NamedTuple):
    """A parser by its name, what has to hold for any bytes, and bytes to begin with."""

    name: str
    check: Callable[[bytes], object]
    seeds: tuple[bytes, ...] = ()


def text_of(data: bytes) -> str:
    """Returns bytes as a text that can come in a message: any code points but surrogates."""
    return data.decode("utf-8", "ignore")


def refuses(call: Callable[[], object], *errors: type[Exception]) -> None:
    """Calls a parser that may raise these errors; the kit's have a reason and a next step or none."""
    try:
        call()
    except errors as error:
        assert not isinstance(error, LaminaError) or error.reason


def takes(parse: Callable[[bytes], object], *errors: type[Exception]) -> Callable[[bytes], None]:
    """Returns the check of a parser of bytes that may raise these errors and no others."""
    return lambda data: refuses(lambda: parse(data), *errors)


def reads(parse: Callable[[str], object], *errors: type[Exception]) -> Callable[[bytes], None]:
    """Returns the check of a parser of texts."""
    return lambda data: refuses(lambda: parse(text_of(data)), *errors)


# TCP/IP


def check_ethernet(data: bytes) -> None:
    """A frame that was read is built again as it was."""
    found = ethernet.parse(data)
    if isinstance(found, ethernet.Frame):
        assert ethernet.build(found.dst, found.src, found.ethertype, found.payload, found.tci) == data


def check_arp(data: bytes) -> None:
    """A packet that was read is read again as the same."""
    found = arp.parse(data)
    assert isinstance(found, Refusal) or arp.parse(arp.build(found)) == found


def check_ipv4(data: bytes) -> None:
    """A packet that was read is built again with a right sum, cut into right pieces, and passed on; a quote is read."""
    ipv4.parse(data, quoted=True)
    found = ipv4.parse(data)
    if isinstance(found, ipv4.Packet):
        assert ipv4.parse(ipv4.build(found)) == found
        passed, cut = ipv4.forwarded(data), ipv4.fragment(found, 576)
        assert isinstance(passed, Refusal) or isinstance(ipv4.parse(passed), ipv4.Packet)
        for piece in [] if isinstance(cut, Refusal) else cut:
            assert isinstance(ipv4.parse(ipv4.build(piece)), ipv4.Packet)


def check_icmp(data: bytes) -> None:
    """A message that was read is built again; what it quotes is a packet or refused."""
    for found in (icmp.parse(data), icmp.Message(3, 0, 0, data)):
        if isinstance(found, icmp.Message):
            assert icmp.parse(icmp.build(found)) == found
            icmp.quoted(found)


def check_udp(data: bytes) -> None:
    """A datagram that was read, its sum out of account, is read again as the same."""
    bare = data[:6] + b"\0\0" + data[8:]
    for each in (data, bare):
        found = udp.parse(1, 2, each)
        assert isinstance(found, Refusal) or udp.parse(1, 2, udp.build(1, 2, found)) == found


def check_segment(data: bytes) -> None:
    """A segment that was read is read again as the same, as far as its options are known."""
    found = segment.parse(1, 2, data, verify=False)
    if isinstance(found, segment.Segment):
        assert segment.parse_options(segment.build_options(found.options))._replace(sack=()) == found.options._replace(
            sack=()
        )


def check_headers(data: bytes) -> None:
    """Headers that were found lie within the frame, in their order."""
    if len(data) >= 14:
        found = headers.parse(data)
        if found.l4:
            assert 14 <= found.l3 < found.l4 <= found.end <= len(data)
            headers.is_transport_sum_good(data, found)


def check_addresses(data: bytes) -> None:
    """Addresses and subnets that were read are written as they were."""
    text = text_of(data)
    found = address.parse_address(text)
    assert found is None or address.format_address(found) == text
    address.parse_subnet(text)
    assert frame.parse_mac(text) is None or len(text) == 17


# The switch


def check_frame(data: bytes) -> None:
    """A head is read the same with any MTU that allows it, tagged by a customer or a provider."""
    for provider in (False, True):
        found = frame.parse(data, 1500, provider=provider)
        if not isinstance(found, DropReason):
            assert frame.parse(data, 9000, provider=provider) == found


def check_guards(data: bytes) -> None:
    """What guards ask of a frame is answered for any bytes."""
    kind, packet = guards.packet_of(data)
    guards.from_dhcp_server(kind, packet)
    guards.is_router_advertisement(kind, packet)
    claimed = guards.claimed_address(kind, packet)
    assert claimed is None or len(claimed) in (0, 4)


def check_dhcp(data: bytes) -> None:
    """A message that was read is built again and read as the same; its host name is a label or empty."""
    found = dhcp.parse(data)
    if not isinstance(found, Refusal):
        assert found.host_name == "" or names.is_label(found.host_name)
        whole = dhcp.build(found)
        assert len(whole) > dhcp.MAX_MESSAGE_BYTES or dhcp.parse(whole) == found


def check_dns(data: bytes) -> None:
    """A question has a name that can be written, and an answer within its limit."""
    found = dns.parse(data)
    if isinstance(found, dns.Query):
        assert len(dns.build(found, dns.Reply(dns.Code.NXDOMAIN), found.size)) <= found.size
    elif isinstance(found, dns.Code):
        assert len(dns.failure(data, found)) == dns.HEADER_BYTES


def check_name(data: bytes) -> None:
    """A name at any place is text of at most 253 bytes, and what follows it lies within the message."""
    for place in range(min(len(data), 20)):
        found = names.read(data, place)
        if not isinstance(found, Refusal):
            assert len(found[0]) <= names.MAX_NAME_BYTES and place < found[1] <= len(data)


def check_vxlan(data: bytes) -> None:
    """What was in a tunnel packet is put into one again; its flow has a port of the range."""
    found = vxlan.parse(data)
    if not isinstance(found, Refusal):
        assert vxlan.parse(vxlan.build(found.vni, found.frame)) == found
    assert vxlan.FIRST_SOURCE_PORT <= vxlan.source_port(data) < vxlan.FIRST_SOURCE_PORT + vxlan.SOURCE_PORTS


def check_capture(data: bytes) -> None:
    """A file gives the same frames, or is refused at all, whole and in pieces."""
    step = data[-1] % 50 + 1 if data else 1
    assert _read(data, len(data) or 1) == _read(data, step)


def _read(data: bytes, step: int) -> object:
    reader, found = CaptureReader(), []
    try:
        for at in range(0, len(data), step):
            found += reader.feed(data[at : at + step])
        reader.finish()
    except Malformed as error:
        return str(error)
    return found


def check_stream(data: bytes) -> None:
    """A stream gives the same frames whole and in pieces, and they are framed as they were."""
    whole, pieces = Deframer(), Deframer()
    frames, too_long = whole.feed(data)
    step, came, lost = data[-1] % 50 + 1 if data else 1, list[bytes](), 0
    for at in range(0, len(data), step):
        found, count = pieces.feed(data[at : at + step])
        came, lost = came + found, lost + count
    assert (came, lost) == (frames, too_long)
    assert too_long or data.startswith(framed(frames))
    assert all(len(each) <= frame.MAX_FRAME_BYTES for each in frames) and LENGTH_BYTES * len(frames) <= len(data)


def check_filter(data: bytes) -> None:
    """A filter is refused at a position, or answers for every frame."""
    try:
        predicate = compile_filter(text_of(data))
    except InvalidArgument as error:
        assert error.reason == "FILTER_MALFORMED"
        return
    for each in FRAMES:
        for size in (0, 13, 14, 20, 34, len(each)):
            predicate(each[:size], len(each))


def check_socket_address(data: bytes) -> None:
    """An address that was read is read again from its own text."""
    families = ("unix", "udp", "tcp")
    found = parse_address(text_of(data), families)
    if isinstance(found, SocketAddress):
        assert parse_address(str(found), families) == found and found.is_local in (True, False)


def check_vnet(data: bytes) -> None:
    """A frame with the kernel's header is admitted and finished, or refused; what is admitted never fails."""
    if len(data) >= LAYOUT.size:
        for tag in (b"", b"\x81\0\0\5"):
            _through(from_kernel(data[: LAYOUT.size], data[LAYOUT.size :], tag))


def check_columns(data: bytes) -> None:
    """A frame with a header and a record beside it is admitted and finished, or refused."""
    size = columns.HEADER_BYTES + columns.RECORD_BYTES
    if len(data) >= size:
        header, record, body = data[: columns.HEADER_BYTES], data[columns.HEADER_BYTES : size], data[size:]
        for each in columns.joined([body], header, record):
            _through(each)


def _through(each: bytes) -> None:
    good, _ = admitted([each], 1500)
    for one in good:
        to_kernel(one)
        columns.parted([one])
    assert len(finished(good, PLAIN)) <= MOST_PIECES


def check_ring_head(data: bytes) -> None:
    """A file of rings has sizes that fit, and tells them again as they were."""
    found = ring_layout.read_head(data)
    assert found is None or (found.fits and data.startswith(found.head()))


def check_nat_packet(data: bytes) -> None:
    """What translation reads of a packet lies within it."""
    for found in (nat.read(data), nat.read_quoted(data)):
        if isinstance(found, nat.View):
            assert 20 <= found.header <= found.total <= len(data)


# Other layers


def check_elf(data: bytes) -> None:
    """A program is refused by a reason, or its headers are read."""
    refuses(lambda: program.parse(lambda at, count: data[at : at + count], len(data)), InvalidArgument)


def check_oci(data: bytes) -> None:
    """Documents of an image are refused by a reason, or read."""
    for parse in (oci_document.parse_index, oci_document.parse_manifest, oci_document.parse_config):
        refuses(lambda parse=parse: parse(data, "it"), InvalidArgument)  # type: ignore[misc]
    refuses(lambda: oci_document.parse_docker_manifest(data), InvalidArgument)


def check_log_line(data: bytes) -> None:
    """Every line is an entry."""
    assert log_line.parse(data).stream in ("stdout", "stderr")


def check_selectors(data: bytes) -> None:
    """A selector is refused by a reason, or selects."""
    text = text_of(data)
    refuses(lambda: selectors.parse_label_selector(text), InvalidArgument)
    for kind in KINDS:
        refuses(lambda kind=kind: selectors.parse_field_selector(text, kind), InvalidArgument)  # type: ignore[misc]


def check_descriptor(data: bytes) -> None:
    """A descriptor of the NIC is read, or malformed."""
    if len(data) >= 16:
        descriptors.read_receive(data[:16])
        refuses(lambda: descriptors.read_transmit(data[:16]), descriptors.Malformed)


def check_apic(data: bytes) -> None:
    """A state that was read is one of those that `pack` writes."""
    found = apic_state.unpack(data)
    assert found is None or apic_state.pack(found) == data


PARSERS: tuple[Parser, ...] = (
    Parser("ethernet", check_ethernet, FRAMES),
    Parser("arp", check_arp, (FRAMES[0][14:],)),
    Parser("ipv4", check_ipv4, PACKETS),
    Parser("icmp", check_icmp, tuple(each[20:] for each in PACKETS)),
    Parser("udp", check_udp, tuple(each[20:] for each in PACKETS)),
    Parser("tcp", check_segment, tuple(each[20:] for each in PACKETS)),
    Parser("offload-headers", check_headers, FRAMES),
    Parser("addresses", check_addresses, (b"10.0.2.1", b"10.0.2.0/24", b"02:00:00:00:00:01")),
    Parser("stack", machines.check_stack, machines.joined(FRAMES)),
    Parser("frame", check_frame, FRAMES),
    Parser("guards", check_guards, FRAMES),
    Parser("dhcp", check_dhcp, (machines.DISCOVER,)),
    Parser("dns", check_dns, (QUESTION,)),
    Parser("dns-name", check_name, (QUESTION[12:], b"\1a\xc0\0")),
    Parser("vxlan", check_vxlan, (vxlan.build(7, FRAMES[0]),)),
    Parser("capture-file", check_capture, (PCAP, PCAPNG)),
    Parser("stream", check_stream, (framed(FRAMES), b"\xff" * 8)),
    Parser("filter", check_filter, (b"tcp port 80 and not (arp or vlan 7)", b"ether[12:2] = 0x800", b"host 10.0.2.1")),
    Parser("socket-address", check_socket_address, (b"udp:127.0.0.1:5000", b"unix:/run/x", b"tcp:[::1]:9")),
    Parser("backend", reads(backends.from_text, ValueError, LookupError, TypeError), (b'["tap",{"interface":"t"}]',)),
    Parser("vnet-header", check_vnet, tuple(struct.pack("<BBHHHH", 1, 1, 54, 500, 34, 16) + each for each in FRAMES)),
    Parser("offload-columns", check_columns, tuple(bytes(52) + each for each in FRAMES)),
    Parser("ring-head", check_ring_head, (ring_layout.Geometry(1, 64, 2048).head(),)),
    Parser("ring", machines.check_ring, (bytes(200),)),
    Parser("nat-packet", check_nat_packet, PACKETS),
    Parser("switch", machines.check_switch, machines.joined(FRAMES)),
    Parser("router", machines.check_router, machines.joined(FRAMES)),
    Parser("translator", machines.check_translator, machines.joined(PACKETS)),
    Parser("gateway", machines.check_gateway, machines.joined(PACKETS)),
    Parser("tunnel", machines.check_tunnel, machines.joined(machines.TUNNELLED)),
    Parser("kernel-image", takes(kernel.parse_kernel, InvalidArgument), (ELF,)),
    Parser("program-image", check_elf, (ELF,)),
    Parser("image-documents", check_oci, (b'{"manifests":[]}', b'{"layers":[],"config":{}}', b'[{"Config":"c"}]')),
    Parser("log-line", check_log_line, (b"2026-01-01T00:00:00.000000000Z stdout F hello",)),
    Parser("manifest", reads(manifest.parse_manifest, InvalidArgument), MANIFEST),
    Parser("json", reads(manifest.parse_json, InvalidArgument), (b'{"a":[1.5,null]}',)),
    Parser("quantity", reads(quantity.parse_quantity, ValueError), (b"1.5Gi", b"-3e2", b"100m")),
    Parser("selectors", check_selectors, (b"app=hello,tier!=db,env in (a,b),!old", b"status.phase=Running")),
    Parser("time", reads(timestamps.parse_time, ValueError), (b"2026-01-01T00:00:00.5+01:00",)),
    Parser("traceparent", trace.parse, (b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01",)),
    Parser("nic-descriptor", check_descriptor, (bytes(16), b"\xff" * 16)),
    Parser("apic-state", check_apic, (bytes(apic_state.BYTES),)),
    Parser("context-state", takes(context_state.unpack, InvalidArgument), (context_state.pack({}),)),
    Parser("layer", machines.check_layer, (machines.tar(),)),
)  # fmt: skip
