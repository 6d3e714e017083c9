"""The names that leases and reservations give: `LABEL` and `LABEL.SUFFIX`, and the way back from an address."""

from __future__ import annotations

from lamina_net.packets.address import format_address
from lamina_vswitch.domain.network.definition import RECORDS_SOURCE_OF_LEASES, NetworkDefinition
from lamina_vswitch.domain.network.dhcp.lease_book import LeaseBook
from lamina_vswitch.domain.network.dns.message import Type
from lamina_vswitch.domain.network.dns.name import REVERSE_ZONE, reverse
from lamina_vswitch.domain.network.dns.zone import RecordSet


class NamesOfLeases:
    """Names from the lease book of a network."""

    def __init__(self, book: LeaseBook, suffix: str) -> None:
        self._book = book
        self._suffix = suffix

    def address(self, name: str, now_ns: int) -> int | None:
        """Return the address of a name, or None."""
        return self._book.named(name.removesuffix(f".{self._suffix}") if self._suffix else name, now_ns)

    def name(self, reverse_name: str, now_ns: int) -> str | None:
        """Return the name of an address, given as `….in-addr.arpa`, or None."""
        address = _address(reverse_name)
        label = self._book.name(address, now_ns) if address is not None else ""
        return self._full(label) if label else None

    def sets(self, now_ns: int) -> list[RecordSet]:
        """Return the names as sets of records, in no order of meaning."""
        found = []
        for label, address in self._book.named_addresses(now_ns):
            name, source = self._full(label), RECORDS_SOURCE_OF_LEASES
            found.append(RecordSet(name, Type.A, (format_address(address),), 0, source))
            found.append(RecordSet(reverse(address), Type.PTR, (name,), 0, source))
        return found

    def _full(self, label: str) -> str:
        return f"{label}.{self._suffix}" if self._suffix else label


def suffix_of(definition: NetworkDefinition) -> str:
    """Return the domain that the devices of a network are in: what DHCP tells, or the responder's first own."""
    if definition.dhcp is not None and definition.dhcp.domain:
        return definition.dhcp.domain
    return definition.dns.domains[0] if definition.dns is not None and definition.dns.domains else ""


def _address(name: str) -> int | None:
    labels = name.removesuffix(f".{REVERSE_ZONE}").split(".")
    if len(labels) != 4 or not name.endswith(f".{REVERSE_ZONE}"):
        return None
    if not all(label.isdecimal() and label.isascii() and len(label) <= 3 and int(label) <= 255 for label in labels):
        return None
    return int.from_bytes(bytes(int(label) for label in reversed(labels)), "big")
