"""Runs of KVM cores that are stopped at an awkward moment: the context goes on as if they had not been."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.hardware.conftest import EPT_ALL
from tests.contract.hardware.kvm_bench import KERNEL_AT, bench, guest_of, variant
from tests.contract.hardware.snippets.cores import emulates

from lamina_hardware.io.kvm import abi, core
from lamina_hardware.io.kvm.exits import handle
from lamina_kit.bus.run_page import ExitReason

pytestmark = pytest.mark.real_time("the cores are processors of the host")
__all__ = ["bench", "variant"]

CR2 = 0x1234_5000


@pytest.mark.parametrize("vector", [8, 14])
async def test_between_a_page_fault_and_its_delivery(bench: Any, monkeypatch: Any, vector: int) -> None:
    """A refused table of the guest leaves CR2 as it was, though a stop stored what KVM's own page fault put there."""
    guest = await guest_of(bench, b"\xf4")
    guest.page.cr2 = CR2
    guest.back(guest.page.cr3, 5)
    stopped: list[int] = []
    event = bytes((1, vector, 1, 1))  # in `struct kvm_vcpu_events`: injected, which, with an error code, pending

    def interrupted(at: Any, error: int) -> Any:
        if at.vcpu.reason == abi.EXIT_SHUTDOWN and not stopped:
            events = slice(abi.RUN_EVENTS, abi.RUN_EVENTS + len(event))
            after, at.vcpu.bytes[events] = bytes(at.vcpu.bytes[events]), event
            at.vcpu.store(at.page, everything=False)
            at.vcpu.bytes[events], at.vcpu.is_newer = after, True
            stopped.append(at.page.cr2)
        return handle(at, error)

    monkeypatch.setattr(core, "handle", interrupted)
    record = await guest.run()
    assert (record.reason, record.gpa & ~4095) == (ExitReason.EPT_VIOLATION, guest.page.cr3)
    assert stopped == ([KERNEL_AT] if emulates() else [])
    assert guest.page.cr2 == CR2
    guest.back(guest.page.cr3, EPT_ALL)
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.page.cr2 == CR2
