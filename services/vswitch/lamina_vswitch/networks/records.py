"""Names of networks as callers see them: sets of records by source, and those that leases give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina_vswitch.domain.network.definition import MAX_RECORD_SETS
from lamina_vswitch.domain.network.dns.zone import Change, RecordSet, Zone
from lamina_vswitch.domain.network.refusals import name_owned, record_limit
from lamina_vswitch.networks.networks import Networks


@dataclass(frozen=True, slots=True)
class RecordsUpdate:
    """What UpdateDnsRecords asks for; sets without answers are removed."""

    network: str
    sets: Sequence[RecordSet]
    source: str
    revision: int
    replace_all: bool


class Records:
    """The names of the networks of a host."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def update(self, wanted: RecordsUpdate) -> tuple[int, int]:
        """Change names, all or none; return the newest revision of the source and how many sets it has."""
        zone = self._networks.routed_state(wanted.network).zone
        change = zone.plan(wanted.sets, wanted.source, wanted.revision, replace_all=wanted.replace_all)
        if change is not None:
            self._check(zone, wanted, change)
            self._networks.store.change_records(wanted.network, wanted.source, change)
            zone.apply(change, wanted.source)
        return zone.revision(wanted.source), zone.count(wanted.source)

    def sets(self, network: str) -> list[RecordSet]:
        """Return the names of a network, ordered by name, then type: those set, and those of leases beside them."""
        state = self._networks.state(network)
        of_leases = state.names.sets(self._networks.clock.now_ns()) if state.definition.dns is not None else []
        found = [*state.zone.sets(), *(each for each in of_leases if not state.zone.exists(each.name))]
        return sorted(found, key=lambda each: (each.name, int(each.type)))

    def _check(self, zone: Zone, wanted: RecordsUpdate, change: Change) -> None:
        for each in wanted.sets:
            owner = zone.owner(each.name)
            if owner and owner != wanted.source:
                raise name_owned(each.name, owner)
        added = sum(zone.find_own(each.name, each.type) is None for each in change.written)
        if len(zone) + added - len(change.removed) > MAX_RECORD_SETS:
            raise record_limit(MAX_RECORD_SETS)
