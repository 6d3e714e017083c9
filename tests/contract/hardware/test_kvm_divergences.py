"""Where cores of the host differ from modelled ones, as docs/divergences.md has it: each must go on failing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.hardware.conftest import EPT_A, EPT_ALL, EPT_D, KERNEL_DATA, RW, P
from tests.contract.hardware.kvm_bench import KERNEL_AT, bench, guest_of, variant

from lamina_kit.bus.run_page import ExitReason

pytestmark = pytest.mark.real_time("the cores are processors of the host")
__all__ = ["bench", "variant"]


@pytest.mark.xfail(strict=True, reason="A and D of EPT entries are set before the context runs", raises=AssertionError)
async def test_ept_bits_of_pages_that_nobody_touched(bench: Any) -> None:
    """An entry of the EPT that no access used has neither A nor D."""
    guest = await guest_of(bench, b"\xf4")
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.ept_entry(guest.kernel[KERNEL_DATA]) & (EPT_A | EPT_D) == 0


@pytest.mark.xfail(strict=True, reason="KVM has no right to execute", raises=AssertionError)
async def test_ept_entries_that_may_not_be_executed(bench: Any) -> None:
    """Code in a page that the EPT does not let be executed exits."""
    guest = await guest_of(bench, bytes.fromhex("48b9" + (0x50_0000).to_bytes(8, "little").hex() + "ffe1"))
    guest.tables.map(0x50_0000, 0x3000_0000, P | RW)
    host = bench.frames()
    bench.bus.write(host, b"\xf4")
    guest.ept.map(0x3000_0000, host, 3, make=EPT_ALL)
    assert (await guest.run()).reason == ExitReason.EPT_VIOLATION


@pytest.mark.xfail(strict=True, reason="KVM does not exit for CPUID", raises=AssertionError)
async def test_cpuid_of_a_leaf_that_is_not_in_the_page(bench: Any) -> None:
    """CPUID of a leaf that the run page does not answer exits."""
    guest = await guest_of(bench, bytes.fromhex("31c00fa2f4"))
    assert (await guest.run()).reason == ExitReason.CPUID


@pytest.mark.xfail(strict=True, reason="KVM does not tell the address", raises=AssertionError)
async def test_the_virtual_address_of_a_refused_read(bench: Any) -> None:
    """The record of a read that the EPT refuses has both addresses."""
    guest = await guest_of(bench, bytes.fromhex("48b9" + (0x50_0000).to_bytes(8, "little").hex() + "488b01f4"))
    guest.tables.map(0x50_0000, 0x3000_0000, P | RW)
    record = await guest.run()
    assert record.rip == KERNEL_AT + 10
    assert (record.reason, record.address) == (ExitReason.EPT_VIOLATION, 0x50_0000)


@pytest.mark.xfail(strict=True, reason="a system call each", raises=AssertionError)
async def test_extended_registers_in_the_page_after_a_port_access(bench: Any) -> None:
    """After OUT the run page has the registers that the guest changed of the FPU."""
    code = "48b9" + KERNEL_DATA.to_bytes(8, "little").hex() + "0f1011 e680 f4".replace(" ", "")
    guest = await guest_of(bench, bytes.fromhex(code))
    guest.put(KERNEL_DATA, b"sixteen bytes ..")
    assert (await guest.run()).reason == ExitReason.IO
    assert bytes(guest.page.fxsave[192:208]) == b"sixteen bytes .."
