"""`Translate` and `WalkAddresses` of `lamina.hardware.v1.Cpu`: page tables walked without side effects."""

from __future__ import annotations

from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_hardware.convert import cpu
from lamina_hardware.domain.paging.mode import Controls, PagingMode, controls_of
from lamina_hardware.domain.paging.walk import Outcome
from lamina_hardware.memory import HostMemory
from lamina_kit.checks import Checks

MAX_ADDRESSES = 1024

_MODES: dict[int, PagingMode] = {
    pb.PAGING_MODE_UNSPECIFIED: PagingMode.FOUR_LEVEL,
    pb.PAGING_MODE_FOUR_LEVEL: PagingMode.FOUR_LEVEL,
    pb.PAGING_MODE_TWO_LEVEL: PagingMode.TWO_LEVEL,
    pb.PAGING_MODE_PAE: PagingMode.PAE,
}


def translate(memory: HostMemory, request: pb.TranslateRequest) -> pb.TranslateResponse:
    """Walks for one address with four levels, CR0.WP and EFER.NXE; a misconfigured EPT entry is a violation here."""
    wanted = cpu.access(request.access)
    found = memory.translate(request.root, request.eptp, request.address, wanted, request.user)
    if found.outcome is Outcome.EPT_MISCONFIGURATION:
        found.outcome = Outcome.EPT_VIOLATION
    return cpu.walk(found)


def walk_addresses(memory: HostMemory, request: pb.WalkAddressesRequest) -> pb.WalkAddressesResponse:
    """Walks for many addresses with the registers of the request.

    Raises `InvalidArgument` that names each wrong field, `InvalidArgument` `PAGING_CONTRADICTED`, `OutOfRange`
    `ADDRESS_OUTSIDE_RAM`.
    """
    controls = _controls(request)
    wanted, user = cpu.access(request.access), request.cpl == 3
    return pb.WalkAddressesResponse(
        walks=[
            cpu.walk(memory.translate(request.root, request.eptp, address, wanted, user, controls))
            for address in request.addresses
        ]
    )


def _controls(request: pb.WalkAddressesRequest) -> Controls:
    """Returns the control bits of a request that is within its bounds."""
    with Checks() as check:
        check.one_of("mode", request.mode, tuple(_MODES))
        check.range("cpl", request.cpl, 0, 3)
        check.range("addresses", len(request.addresses), 1, MAX_ADDRESSES)
        check.that(request.access != 0, "access", "is required")
    mode = _MODES[request.mode]
    controls = controls_of(mode, request.cr0, request.cr4, request.efer, request.rflags, request.cpl)
    with Checks() as check:
        for address in request.addresses:
            check.that(address >> controls.address_bits == 0, "addresses", f"has {address:#x}, beyond 32 bits")
    return controls
