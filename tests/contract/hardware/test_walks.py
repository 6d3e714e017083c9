"""WalkAddresses: every paging mode, every control bit, many addresses, and what it refuses."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import hardware_pb2 as pb

P, RW, US, A, D, PS, G, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63
READ, WRITE, EXECUTE = access_pb2.ACCESS_READ, access_pb2.ACCESS_WRITE, access_pb2.ACCESS_EXECUTE
CR0_PG, CR0_WP, CR4_PSE, CR4_PAE, CR4_PCIDE, CR4_SMEP, CR4_SMAP = (1 << n for n in (31, 16, 4, 5, 17, 20, 21))
AC, NXE = 1 << 18, 1 << 11
TRANSLATED, FAULT, VIOLATION = 1, 2, 3
NOT_CANONICAL, MISCONFIGURED = 4, 5


async def walk(bench: Any, **wish: Any) -> Any:
    """Walks for one address; returns its walk."""
    wish.setdefault("access", READ)
    wish["addresses"] = [wish.pop("address")]
    return (await bench.cpu.WalkAddresses(pb.WalkAddressesRequest(**wish))).walks[0]


async def refused(bench: Any, **wish: Any) -> tuple[grpc.StatusCode, str]:
    """Walks in vain; returns the code and the details of the refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await bench.cpu.WalkAddresses(pb.WalkAddressesRequest(**wish))
    return error.value.code(), error.value.details() or ""


def put32(bench: Any, address: int, value: int) -> None:
    """Writes one entry of 4 bytes."""
    bench.bus.write(address, value.to_bytes(4, "little"))


async def test_two_levels(bench: Any) -> None:
    """The textbook's 32-bit walk: 10, 10 and 12 bits, entries of 4 bytes, each with its address, value and bits."""
    root, table, frame = (bench.frames() for _ in range(3))
    va = 0x1234_5678
    put32(bench, root + 4 * (va >> 22), table | P | RW | US | A)
    put32(bench, table + 4 * (va >> 12 & 1023), frame | P | US)
    found = await walk(bench, root=root, address=va, mode=pb.PAGING_MODE_TWO_LEVEL, cpl=3)
    assert (found.outcome, found.physical_address, found.page_size_bytes) == (TRANSLATED, frame | 0x678, 4096)
    assert [(step.table, step.level, step.index) for step in found.steps] == [("PD", 2, 0x48), ("PT", 1, 0x345)]
    assert [step.entry_address for step in found.steps] == [root + 4 * 0x48, table + 4 * 0x345]
    assert [list(step.bits) for step in found.steps] == [["P", "RW", "US", "A"], ["P", "US"]]
    found = await walk(bench, root=root, address=va, mode=pb.PAGING_MODE_TWO_LEVEL, cpl=3, access=WRITE)
    assert (found.outcome, found.error_code) == (FAULT, 0b111)


async def test_pages_of_4_mib_need_pse(bench: Any) -> None:
    """With CR4.PSE a directory entry with PS is a page of 4 MiB whose bit 21 is reserved; without, PS means nothing."""
    root = bench.frames()
    put32(bench, root, 4 << 20 | P | RW | US | PS)
    put32(bench, root + 4, 6 << 20 | P | PS)
    wish = {"root": root, "mode": pb.PAGING_MODE_TWO_LEVEL}
    found = await walk(bench, address=0x12_3456, **wish)
    assert (found.physical_address, found.page_size_bytes) == (0x52_3456, 4 << 20)
    found = await walk(bench, address=0x40_0000, **wish)
    assert (found.outcome, found.error_code) == (FAULT, 0b1001)
    found = await walk(bench, address=0x12_3456, cr4=1 << 7, **wish)
    assert [step.table for step in found.steps] == ["PD", "PT"]


async def test_pae(bench: Any) -> None:
    """PAE has four entries at the top, whose reserved bits refuse, 2 MiB pages below, and NX."""
    root, directory = bench.frames(), bench.frames()
    bench.bus.store64(root + 0x20 + 8, directory | P)
    bench.bus.store64(root + 0x20 + 16, directory | P | RW)
    bench.bus.store64(directory, 2 << 20 | P | RW | US | PS | NX)
    wish = {"root": root | 0x20, "mode": pb.PAGING_MODE_PAE}
    found = await walk(bench, address=0x4000_1234, **wish)
    assert (found.physical_address, found.page_size_bytes) == (0x20_1234, 2 << 20)
    assert [(step.table, step.index) for step in found.steps] == [("PDPT", 1), ("PD", 0)]
    found = await walk(bench, address=0x4000_1234, access=EXECUTE, **wish)
    assert (found.outcome, found.error_code) == (FAULT, 0b10001)
    found = await walk(bench, address=0x8000_0000, **wish)
    assert (found.outcome, found.error_code) == (FAULT, 0b1001)
    assert (await walk(bench, address=0xC000_0000, **wish)).error_code == 0


@pytest.mark.parametrize(
    ("bits", "access", "cpl", "registers", "code"),
    [
        (P | US, WRITE, 0, {"cr0": CR0_PG}, None),
        (P | US, WRITE, 0, {"cr0": CR0_PG | CR0_WP}, 0b11),
        (P | US, WRITE, 3, {"cr0": CR0_PG}, 0b111),
        (P | US, EXECUTE, 0, {}, None),
        (P | US, EXECUTE, 0, {"cr4": CR4_PAE | CR4_SMEP}, 0b10001),
        (P | US, READ, 0, {"cr4": CR4_PAE | CR4_SMAP}, 0b1),
        (P | US, READ, 0, {"cr4": CR4_PAE | CR4_SMAP, "rflags": AC}, None),
        (P | US, READ, 3, {"cr4": CR4_PAE | CR4_SMAP}, None),
        (P | US, EXECUTE, 0, {"cr4": CR4_PAE | CR4_SMAP}, None),
        (P | US | NX, EXECUTE, 3, {}, 0b10101),
        (P | US | NX, READ, 3, {"efer": 1}, 0b1101),
        (P, EXECUTE, 3, {"efer": 1}, 0b101),
        (P, EXECUTE, 3, {"efer": 1, "cr4": CR4_PAE | CR4_SMEP}, 0b10101),
        (P | US, READ, 2, {"cr4": CR4_PAE | CR4_SMAP}, 0b1),
        (P | US | G, READ, 3, {"cr4": CR4_PAE | CR4_PCIDE | 1 << 7}, None),
    ],
)
async def test_control_bits(
    bench: Any, bits: int, access: Any, cpl: int, registers: dict[str, int], code: int | None
) -> None:
    """CR0.WP, SMEP, SMAP with RFLAGS.AC, and EFER.NXE decide as the manual says, with its error code."""
    tables = bench.tables()
    tables.map(0x40_0000, bench.frames(), bits)
    found = await walk(bench, root=tables.root | 0xABC, address=0x40_0000, access=access, cpl=cpl, **registers)
    assert (found.outcome, found.error_code) == ((TRANSLATED, 0) if code is None else (FAULT, code))


async def test_many_addresses_in_order(bench: Any) -> None:
    """A thousand addresses are walked in one call, in the order of the request, and nothing is set."""
    tables = bench.tables()
    frame = bench.frames()
    place = tables.map(0x40_0000, frame)
    addresses = [0x40_0000 + n if n % 3 else 1 << 47 for n in range(1024)]
    answer = await bench.cpu.WalkAddresses(
        pb.WalkAddressesRequest(root=tables.root, addresses=addresses, access=WRITE, cpl=3)
    )
    assert [found.outcome for found in answer.walks] == [TRANSLATED if n % 3 else NOT_CANONICAL for n in range(1024)]
    assert answer.walks[1].physical_address == frame + 1
    assert bench.bus.load64(place) & (A | D) == 0


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        (7, TRANSLATED),
        (0, VIOLATION),
        (4, VIOLATION),
        (2, MISCONFIGURED),
        (6, MISCONFIGURED),
        (7 | 2 << 3, MISCONFIGURED),
        (7 | 6 << 3, TRANSLATED),
        (7 | 7 << 3, MISCONFIGURED),
        (7 | 1 << 51, VIOLATION),
    ],
)
async def test_second_stage_misconfigurations(bench: Any, entry: int, outcome: int) -> None:
    """W without R and unknown memory types are misconfigurations, a missing right is a violation."""
    ept = bench.tables()
    frame = bench.frames()
    ept.map(0x5000, frame, entry, make=7)
    found = await walk(bench, eptp=ept.root, address=0x5008)
    assert found.outcome == outcome
    assert found.guest_physical_address == 0x5008
    request = pb.TranslateRequest(eptp=ept.root, address=0x5008)
    assert (await bench.cpu.Translate(request)).outcome == (VIOLATION if outcome == MISCONFIGURED else outcome)


async def test_reserved_bits_of_second_stage_tables(bench: Any) -> None:
    """Bits 3 to 6 of an EPT table entry, PS in the root, and low address bits of large pages are misconfigurations."""
    for level, bits in ((4, 7 | 1 << 3), (4, 7 | PS), (3, 7 | 1 << 6), (2, 7 | PS | 1 << 13), (3, 7 | PS | 1 << 21)):
        ept = bench.tables()
        bench.bus.store64(ept.entry(0, level, make=7), 4 << 20 | bits if level < 4 else bench.frames() | bits)
        found = await walk(bench, eptp=ept.root, address=0x123)
        assert found.outcome == MISCONFIGURED, (level, bits)


async def test_a_table_that_points_at_itself(bench: Any) -> None:
    """A root whose entry points at itself is its own table on every level; the walk ends after four."""
    root = bench.frames()
    bench.bus.store64(root + 8 * 511, root | P | RW)
    found = await walk(bench, root=root, address=0xFFFF_FFFF_FFFF_F123)
    assert (found.outcome, found.physical_address) == (TRANSLATED, root | 0x123)
    assert [step.entry_address for step in found.steps] == [root + 8 * 511] * 4


async def test_what_is_refused(bench: Any) -> None:
    """Roots outside RAM, contradicted modes, and requests beyond their bounds."""
    root = bench.frames()
    wish = {"root": root, "addresses": [0], "access": READ}
    outside = grpc.StatusCode.OUT_OF_RANGE
    assert (await refused(bench, **{**wish, "root": 64 << 20}))[0] is outside
    assert (await refused(bench, **{**wish, "eptp": 64 << 20}))[0] is outside
    two, pae = pb.PAGING_MODE_TWO_LEVEL, pb.PAGING_MODE_PAE
    wrong: tuple[dict[str, Any], ...] = (
        {"cr0": CR0_WP},
        {"cr4": CR4_PSE},
        {"mode": two, "cr4": CR4_PAE},
        {"mode": pae, "cr4": CR4_PSE},
        {"mode": pae, "cr4": CR4_PAE | CR4_PCIDE},
        {"mode": two, "addresses": [1 << 32]},
        {"mode": 9},
        {"cpl": 4},
        {"access": 0},
        {"access": 9},
        {"addresses": []},
        {"addresses": [0] * 1025},
    )
    for changes in wrong:
        assert (await refused(bench, **{**wish, **changes}))[0] is grpc.StatusCode.INVALID_ARGUMENT, changes
