"""Between the contract and the domain: the messages of backends."""

from __future__ import annotations

from lamina.vswitch.v1 import backends_pb2 as pb

from lamina_kit.checks import Checks
from lamina_vswitch.convert.streams import offloads
from lamina_vswitch.domain.backend.address import parse_address
from lamina_vswitch.domain.backend.definition import (
    DEFAULT_RING_BYTES,
    FAMILIES,
    INTERFACE_BYTES,
    QUEUES,
    RING_BYTES,
    BackendDefinition,
    BackendView,
    CaptureFile,
    Datagram,
    Kind,
    Packet,
    Stream,
    Tap,
    Veth,
)
from lamina_vswitch.domain.definitions.switches import DEFAULT_QUEUE_FRAMES, MAX_REQUEST_ID_BYTES, QUEUE_FRAMES
from lamina_vswitch.names import Names

MAX_PATH_BYTES = 4095


def backend_definition(request: pb.CreateBackendRequest, names: Names) -> BackendDefinition:
    """Return the backend that a request asks for, defaults filled in."""
    wanted = request.backend
    queue_frames = wanted.queue_frames or DEFAULT_QUEUE_FRAMES
    with Checks() as check:
        kind = _kind(check, wanted)
        check.range("backend.queue_frames", queue_frames, *QUEUE_FRAMES)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
    switch, port = names.port(request.parent, "parent")
    return BackendDefinition(switch, port, kind, queue_frames)


def _kind(check: Checks, wanted: pb.Backend) -> Kind:
    word = wanted.WhichOneof("kind")
    if word == "tap":
        _check_interface(check, "backend.tap.interface", wanted.tap.interface)
        tap = Tap(wanted.tap.interface, wanted.tap.queues or 1, wanted.tap.up)
        check.range("backend.tap.queues", tap.queues, *QUEUES)
        return tap
    if word == "packet":
        _check_interface(check, "backend.packet.interface", wanted.packet.interface)
        ring_bytes = wanted.packet.ring_bytes or DEFAULT_RING_BYTES
        check.range("backend.packet.ring_bytes", ring_bytes, *RING_BYTES)
        return Packet(wanted.packet.interface, wanted.packet.promiscuous, ring_bytes)
    if word == "datagram":
        return _datagram(check, wanted.datagram)
    if word == "stream":
        stream = Stream(wanted.stream.address, wanted.stream.listen, wanted.stream.allow_remote)
        _check_address(check, "backend.stream.address", stream.address, Stream, allow_remote=stream.allow_remote)
        return stream
    if word == "veth":
        _check_interface(check, "backend.veth.interface", wanted.veth.interface)
        return Veth(wanted.veth.interface, wanted.veth.up)
    check.that(word == "file", "backend.kind", "is missing: tap, packet, datagram, stream, file or veth")
    for field in ("input_path", "output_path"):
        _check_path(check, f"backend.file.{field}", getattr(wanted.file, field))
    both = wanted.file.input_path and wanted.file.input_path == wanted.file.output_path
    check.that(not both, "backend.file.output_path", "is the input, too")
    return CaptureFile(wanted.file.input_path, wanted.file.output_path, wanted.file.original_timing)


def _datagram(check: Checks, wanted: pb.DatagramBackend) -> Datagram:
    made = Datagram(wanted.local_address, wanted.remote_address, wanted.allow_remote)
    local = "backend.datagram.local_address"
    _check_address(check, local, made.local_address, Datagram, allow_remote=made.allow_remote)
    if made.remote_address:
        remote = "backend.datagram.remote_address"
        _check_address(check, remote, made.remote_address, Datagram, allow_remote=made.allow_remote)
        same = made.local_address.partition(":")[0] == made.remote_address.partition(":")[0]
        check.that(same, remote, "is of another kind than local_address")
    return made


def _check_interface(check: Checks, field: str, name: str) -> None:
    fits = INTERFACE_BYTES[0] <= len(name.encode()) <= INTERFACE_BYTES[1]
    good = fits and name not in (".", "..") and not any(each in "/:%" or each.isspace() or each < " " for each in name)
    check.that(good, field, "is not the name of an interface, 1 to 15 characters")


def _check_address(
    check: Checks, field: str, text: str, kind: type[Datagram] | type[Stream], *, allow_remote: bool
) -> None:
    found = parse_address(text, FAMILIES[kind])
    if isinstance(found, str):
        check.that(False, field, found)
    else:
        check.that(found.is_local or allow_remote, field, "is not a loopback address, and allow_remote is not set")


def _check_path(check: Checks, field: str, path: str) -> None:
    if path:
        check.that(path.startswith("/") and "\0" not in path, field, "is not an absolute path")
        check.max_bytes(field, path, MAX_PATH_BYTES)


def backend(view: BackendView) -> pb.Backend:
    """Return a backend as a message."""
    kind = view.definition.kind
    made = pb.Backend(
        name=view.name,
        queue_frames=view.definition.queue_frames,
        state=pb.Backend.State.ValueType(view.state),
        state_detail=view.detail,
        offloads=offloads(view.takes),
    )
    if isinstance(kind, Tap):
        made.tap.CopyFrom(pb.TapBackend(interface=kind.interface, queues=kind.queues, up=kind.up))
    elif isinstance(kind, Veth):
        made.veth.CopyFrom(pb.VethBackend(interface=kind.interface, up=kind.up))
    elif isinstance(kind, Packet):
        made.packet.CopyFrom(
            pb.PacketBackend(interface=kind.interface, promiscuous=kind.promiscuous, ring_bytes=kind.ring_bytes)
        )
    elif isinstance(kind, Datagram):
        made.datagram.CopyFrom(
            pb.DatagramBackend(
                local_address=kind.local_address, remote_address=kind.remote_address, allow_remote=kind.allow_remote
            )
        )
    elif isinstance(kind, Stream):
        made.stream.CopyFrom(pb.StreamBackend(address=kind.address, listen=kind.listen, allow_remote=kind.allow_remote))
    else:
        made.file.CopyFrom(
            pb.FileBackend(
                input_path=kind.input_path, output_path=kind.output_path, original_timing=kind.original_timing
            )
        )
    return made
