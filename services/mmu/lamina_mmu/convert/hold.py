"""Between the contract and the domain: what a holder and the MMU say to each other."""

from __future__ import annotations

from collections.abc import Iterable

from lamina.mmu.v1 import mmu_pb2 as pb

from lamina_kit.checks import Checks
from lamina_mmu.domain.hold import (
    EXTENT_BYTES,
    Age,
    ExtentRevocation,
    Grant,
    GrantExtent,
    Message,
    Opened,
    PageBits,
    Refusal,
)


def check_extent(want: pb.HoldWantExtent) -> None:
    """Refuses an extent of a size that no entry of a second stage maps."""
    with Checks() as check:
        check.one_of("want_extent.extent_bytes", want.extent_bytes, EXTENT_BYTES)


def bits(pages: Iterable[pb.PageBits]) -> list[PageBits]:
    """Returns the bits of pages."""
    return [PageBits(one.address, one.accessed, one.dirty) for one in pages]


def response(position: int, message: Message) -> pb.HoldResponse:
    """Returns what the MMU says to a holder as a message."""
    answer = pb.HoldResponse(position=position)
    if isinstance(message, Opened):
        answer.opened.SetInParent()
    elif isinstance(message, Grant):
        answer.grant.sequence = message.sequence
        answer.grant.address = message.address
        answer.grant.frame = message.frame
        answer.grant.writable = message.writable
        answer.grant.executable = message.executable
        answer.grant.outcome = message.outcome  # type: ignore[assignment]
    elif isinstance(message, Refusal):
        answer.refusal.sequence = message.sequence
        answer.refusal.address = message.address
        answer.refusal.outcome = message.outcome  # type: ignore[assignment]
    elif isinstance(message, Age):
        answer.age.sequence = message.sequence
        answer.age.addresses.extend(message.addresses)
    elif isinstance(message, GrantExtent):
        answer.grant_extent.sequence = message.sequence
        answer.grant_extent.address = message.address
        answer.grant_extent.frame = message.frame
        answer.grant_extent.extent_bytes = message.size
        answer.grant_extent.writable = message.writable
        answer.grant_extent.executable = message.executable
        answer.grant_extent.pinned = message.pinned
    elif isinstance(message, ExtentRevocation):
        answer.revoke_extents.revocation = message.revocation
        answer.revoke_extents.addresses.extend(message.addresses)
        answer.revoke_extents.split = message.split
    else:
        answer.revocation.revocation = message.revocation
        answer.revocation.addresses.extend(message.addresses)
        answer.revocation.write_only = message.write_only
    return answer
