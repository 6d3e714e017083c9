"""The DNS responder of one network: a question in; an answer out, or word that another server has to be asked.

A name is looked up among those that were told, then among those of leases. In its own domains the responder alone
answers: other names do not exist there (NXDOMAIN), and a name without the type that is asked for is said to be so
(NODATA), each with the start of authority that lets the asker remember it. For every other name another server is
asked, if one is configured; else the question is refused. Source: RFC 1034, 4.3.2; RFC 2308.
"""

from __future__ import annotations

from typing import Protocol

from lamina_net.packets.address import format_address
from lamina_vswitch.domain.network.definition import DnsSettings
from lamina_vswitch.domain.network.dns.message import TYPE_ANY, Code, Query, Record, Reply, Type
from lamina_vswitch.domain.network.dns.name import within
from lamina_vswitch.domain.network.dns.zone import Zone

_MAX_ALIASES = 8
_MAX_ANSWERS = 256


class LeaseNames(Protocol):
    """The names that leases give."""

    def address(self, name: str, now_ns: int) -> int | None:
        """Return the address of a name, or None."""

    def name(self, reverse: str, now_ns: int) -> str | None:
        """Return the name of an address, given as `….in-addr.arpa`, or None."""


class Responder:
    """Answers the questions of one network."""

    def __init__(self, settings: DnsSettings, zone: Zone, leases: LeaseNames) -> None:
        self._settings = settings
        self._zone = zone
        self._leases = leases

    def answer(self, query: Query, now_ns: int) -> Reply | None:
        """Return the answer, or None when another server has to be asked."""
        records: list[Record] = []
        name = query.name
        for _ in range(_MAX_ALIASES):
            records += self._records(name, query.type, now_ns)
            alias = self._zone.find(name, Type.CNAME) if query.type not in (Type.CNAME, TYPE_ANY) else None
            if alias is None:
                break
            records.append(Record(name, Type.CNAME, self._ttl(alias.ttl), alias.answers[0]))
            name = alias.answers[0]
        domain = self._own_domain(name)
        if any(record.name == name for record in records) or (records and not domain):
            return self._reply(Code.NOERROR, records)
        exists = self._zone.exists(name) or self._lease_records(name, TYPE_ANY, now_ns) != []
        if domain:
            code = Code.NOERROR if exists or name == domain else Code.NXDOMAIN
            ttl = self._settings.ttl_seconds
            return self._reply(code, records)._replace(soa=domain, soa_ttl=ttl)
        if exists:
            return self._reply(Code.NOERROR, records)
        return None if self._settings.upstreams else Reply(Code.REFUSED)

    def _reply(self, code: Code, records: list[Record]) -> Reply:
        chosen = tuple(records[:_MAX_ANSWERS])
        return Reply(code, chosen, authoritative=True, recursion_available=bool(self._settings.upstreams))

    def _records(self, name: str, kind: int, now_ns: int) -> list[Record]:
        found: list[Record] = []
        for each in self._zone.types(name) if kind == TYPE_ANY else (kind,):
            known = self._zone.find(name, each)
            if known is not None:
                ttl = self._ttl(known.ttl)
                found += [Record(name, known.type, ttl, answer) for answer in self._zone.turned(known)]
        return found or ([] if self._zone.exists(name) else self._lease_records(name, kind, now_ns))

    def _lease_records(self, name: str, kind: int, now_ns: int) -> list[Record]:
        ttl = self._settings.ttl_seconds
        if kind in (Type.A, TYPE_ANY):
            address = self._leases.address(name, now_ns)
            if address is not None:
                return [Record(name, Type.A, ttl, format_address(address))]
        if kind in (Type.PTR, TYPE_ANY):
            owner = self._leases.name(name, now_ns)
            if owner is not None:
                return [Record(name, Type.PTR, ttl, owner)]
        return []

    def _own_domain(self, name: str) -> str:
        """Return the longest own domain that a name is in, or empty."""
        return max((domain for domain in self._settings.domains if within(name, domain)), key=len, default="")

    def _ttl(self, ttl: int) -> int:
        return ttl or self._settings.ttl_seconds
