"""Which backends are the two ends of one wire, as far as their definitions tell."""

from __future__ import annotations

from lamina_vswitch.domain.backend.address import parse_address
from lamina_vswitch.domain.backend.definition import CaptureFile, Datagram, Kind, Packet, Stream, Tap, Veth


def are_joined(one: Kind, other: Kind) -> bool:
    """Tell whether two backends send to each other.

    Datagram sockets do when one names the other as its peer and the other names it or nobody; stream sockets do when
    one listens where the other connects to.
    """
    if isinstance(one, Datagram) and isinstance(other, Datagram):
        here, there = _names(one, other), _names(other, one)
        return (here or not one.remote_address) and (there or not other.remote_address) and (here or there)
    if isinstance(one, Stream) and isinstance(other, Stream):
        return one.listen is not other.listen and _same(one.address, other.address)
    return False


def words(kind: Kind) -> str:
    """Return what a wire is in words, as the end of "leaves the host by"."""
    match kind:
        case Tap():
            return f"TAP device {kind.interface}"
        case Veth():
            return f"interface {kind.interface}, whose other end is in the kernel's bridge"
        case Packet():
            return f"interface {kind.interface}"
        case Datagram():
            return f"a datagram socket at {kind.local_address}"
        case Stream():
            return f"a stream socket at {kind.address}"
        case CaptureFile():
            return f"capture file {kind.output_path or kind.input_path}"


def _names(one: Datagram, other: Datagram) -> bool:
    return bool(one.remote_address) and _same(one.remote_address, other.local_address)


def _same(one: str, other: str) -> bool:
    families = ("unix", "udp", "tcp")
    return parse_address(one, families) == parse_address(other, families)
