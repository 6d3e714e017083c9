"""Contract ↔ domain for wires."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from lamina.hardware.v1 import wires_pb2 as pb

from lamina_hardware.devices.wires import Line
from lamina_hardware.domain.wire import DEFAULT_QUEUE, MILLION, Quality
from lamina_hardware.io.media.datagrams import LONGEST_PATH, UdpMedium, UnixMedium
from lamina_hardware.io.media.kernel import NAME_BYTES, TapMedium
from lamina_hardware.io.media.medium import Medium
from lamina_hardware.io.media.packet import PacketMedium
from lamina_hardware.names import Names
from lamina_kit.checks import Checks
from lamina_kit.errors import FailedPrecondition

LEAST_RATE, MOST_RATE = 1_000, 10**12
MOST_DELAY_NS = 10_000_000_000
LEAST_QUEUE, MOST_QUEUE = 1_500, 1 << 30
_FIELDS = {
    "rate_bits_per_second": "rate",
    "delay_ns": "delay_ns",
    "jitter_ns": "jitter_ns",
    "loss_ppm": "loss_ppm",
    "queue_bytes": "queue_bytes",
    "cut": "is_cut",
}


def quality(message: pb.Wire) -> Quality:
    """Returns how a wire carries. Raises `InvalidArgument` with every violation."""
    with Checks() as check:
        if message.rate_bits_per_second:
            check.range("wire.rate_bits_per_second", message.rate_bits_per_second, LEAST_RATE, MOST_RATE)
        check.range("wire.delay_ns", message.delay_ns, 0, MOST_DELAY_NS)
        check.range("wire.jitter_ns", message.jitter_ns, 0, MOST_DELAY_NS)
        check.range("wire.loss_ppm", message.loss_ppm, 0, MILLION)
        if message.queue_bytes:
            check.range("wire.queue_bytes", message.queue_bytes, LEAST_QUEUE, MOST_QUEUE)
    return Quality(
        message.rate_bits_per_second,
        message.delay_ns,
        message.jitter_ns,
        message.loss_ppm,
        message.queue_bytes or DEFAULT_QUEUE,
        message.cut,
    )


def changed(message: pb.Wire, paths: Collection[str], old: Quality) -> Quality:
    """Returns the quality with the fields that a mask names changed. Raises `InvalidArgument`."""
    with Checks() as check:
        check.that(bool(paths), "update_mask", "is empty")
        for path in paths:
            check.that(path in _FIELDS, "update_mask", f"names {path!r}, which cannot be changed")
    new = quality(message)
    return replace(old, **{_FIELDS[path]: getattr(new, _FIELDS[path]) for path in paths})


def wire(line: Line, names: Names) -> pb.Wire:
    """Returns a wire as a message."""
    found, quality_ = line.wire, line.wire.quality
    message = pb.Wire(
        name=names.format_wire(found.name),
        rate_bits_per_second=quality_.rate,
        delay_ns=quality_.delay_ns,
        jitter_ns=quality_.jitter_ns,
        loss_ppm=quality_.loss_ppm,
        queue_bytes=quality_.queue_bytes,
        cut=quality_.is_cut,
        nics=[names.format_nic(nic) for nic in sorted(line.devices)],
        frames=found.frames,
        bytes=found.bytes,
        lost_frames=line.lost,
    )
    _show_medium(line, message)
    return message


def _show_medium(line: Line, message: pb.Wire) -> None:
    asked, medium = line.kind, line.medium
    if isinstance(asked, pb.UdpMedium):
        message.udp.CopyFrom(asked)
        if isinstance(medium, UdpMedium):
            message.udp.local = _joined(*medium.local)
    elif isinstance(asked, pb.UnixMedium):
        message.unix.CopyFrom(asked)
    elif isinstance(asked, pb.TapMedium):
        message.tap.interface = medium.name if isinstance(medium, TapMedium) else asked.interface
    elif isinstance(asked, pb.PacketMedium):
        message.packet.CopyFrom(asked)
    else:
        message.fabric.fabric = line.fabric


def medium_of(message: pb.Wire) -> object:
    """Returns the medium that a wire asks for, as its message, checked. Raises `InvalidArgument`."""
    kind = message.WhichOneof("medium") or "fabric"
    asked = getattr(message, kind)
    with Checks() as check:
        if kind == "fabric" and asked.fabric:
            check.identifier("wire.fabric.fabric", asked.fabric)
        elif kind == "udp":
            for field in ("local", "remote"):
                text = getattr(asked, field)
                if text or field == "remote":
                    check.that(_address(text) is not None, f"wire.udp.{field}", "is not ADDRESS:PORT")
            local, remote = _address(asked.local), _address(asked.remote)
            if remote is not None:
                check.that(remote[1] > 0, "wire.udp.remote", "has port 0, which nobody can receive at")
                fits = local is None or (":" in local[0]) == (":" in remote[0])
                check.that(fits, "wire.udp.local", "is of another IP version than the remote address")
        elif kind == "unix":
            for field in ("local", "remote"):
                text = getattr(asked, field)
                fits = 0 < len(text.encode()) <= LONGEST_PATH and "\0" not in text
                check.that(fits, f"wire.unix.{field}", f"is not a path of 1 to {LONGEST_PATH} bytes")
        elif kind in ("tap", "packet"):
            check.that(_is_interface(asked.interface, kind == "tap"), f"wire.{kind}.interface", "is no interface name")
    return asked


def open_medium(asked: object, state_dir: Path, mode: str) -> Medium | None:
    """Opens what leads to the outside; None for a fabric. Raises `FailedPrecondition` `CLOCK_VIRTUAL` and its own."""
    if isinstance(asked, pb.FabricMedium):
        return None
    if mode == "virtual":
        raise FailedPrecondition(
            "A wire to the outside cannot run on a virtual clock: what comes from there has no virtual time.",
            reason="CLOCK_VIRTUAL",
            next_step="Use a `fabric`, or start the stack on a real clock.",
        )
    if isinstance(asked, pb.UdpMedium):
        remote = _address(asked.remote)
        assert remote is not None
        anywhere = ("::" if ":" in remote[0] else "0.0.0.0", 0)  # only the peer is heard
        return UdpMedium(_address(asked.local) or anywhere, remote)
    if isinstance(asked, pb.UnixMedium):
        local, remote_path = state_dir / asked.local, state_dir / asked.remote
        with Checks() as check:
            fits = max(len(str(local).encode()), len(str(remote_path).encode())) <= LONGEST_PATH
            check.that(fits, "wire.unix", f"has a path of more than {LONGEST_PATH} bytes below {state_dir}")
        return UnixMedium(local, remote_path)
    if isinstance(asked, pb.TapMedium):
        return TapMedium(asked.interface)
    assert isinstance(asked, pb.PacketMedium)
    return PacketMedium(asked.interface)


def _address(text: str) -> tuple[str, int] | None:
    """Returns the parts of `127.0.0.1:4000` or `[::1]:4000`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    except ValueError:
        return None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_interface(name: str, may_be_empty: bool) -> bool:
    if not name:
        return may_be_empty
    printable = name.isascii() and name.isprintable() and not set(name) & set("/: ")
    return printable and len(name) <= NAME_BYTES and name not in (".", "..")
