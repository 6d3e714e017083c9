"""A DMA domain: what its devices may reach, and what was counted for it. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.iommu.iotlb import Iotlb
from lamina_hardware.domain.iommu.page_requests import PageRequests
from lamina_hardware.domain.iommu.tables import DmaTables


class DomainKind(enum.IntEnum):
    """Who fills the table; the numbers are those of the contract."""

    MAPPED = 1
    OWNERS = 2
    IDENTITY = 3


@dataclass(frozen=True, slots=True)
class DomainWish:
    """What a caller wants of a new domain. `owner` is its session's, empty for none."""

    kind: DomainKind
    root: int
    label: str
    page_requests: bool
    owner: str


@dataclass(slots=True, eq=False)
class DmaDomain:
    """One domain. `key` identifies it for the life of the host; `tables` are there for `MAPPED` alone."""

    key: int
    handle: Handle
    wish: DomainWish
    tables: DmaTables | None
    tlb: Iotlb = field(default_factory=Iotlb)
    requests: PageRequests = field(default_factory=PageRequests)
    hits: int = 0
    misses: int = 0
    faults: int = 0
