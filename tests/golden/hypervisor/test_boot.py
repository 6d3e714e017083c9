"""What a boot looks like from outside, word by word."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lamina.hardware.v1 import hardware_pb2
from lamina.hypervisor.v1 import hypervisor_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")
Golden = Callable[[str, Path], None]
HERE = Path(__file__).parent


async def test_the_serial_output_of_a_boot(lab: Any, golden: Golden) -> None:
    """The guest kernel says the same words at every boot; only the time it took differs."""
    name, output = await lab.boot(command_line="colour=blue", vcpu_count=2)
    assert output.endswith(b"> ")
    text = output.decode().replace("\r\n", "\n")
    golden(re.sub(r"booted in \d+", "booted in N", text) + "\n", HERE / "boot.txt")
    await lab.stop_vm(name)


async def test_the_kinds_of_exit_of_a_boot(lab: Any, golden: Golden) -> None:
    """A boot leaves the guest for the same reasons every time; kinds that depend on the host's pace are left out."""
    name, _ = await lab.boot()
    ledger = await lab.vms.GetExitLedger(pb.GetExitLedgerRequest(name=name))
    paced = (hardware_pb2.EXIT_REASON_BUDGET, hardware_pb2.EXIT_REASON_CANCELED, hardware_pb2.EXIT_REASON_HLT)
    assert ledger.total_exits > 0
    kinds = [
        f"{hardware_pb2.ExitReason.Name(row.reason).removeprefix('EXIT_REASON_'):14} {row.qualifier}".rstrip()
        for row in ledger.rows
        if row.reason not in paced
    ]
    golden("\n".join(kinds) + "\n", HERE / "exits.txt")
    await lab.stop_vm(name)


async def test_the_entries_of_a_translation(lab: Any, golden: Golden) -> None:
    """Guest virtual 0x1000 takes the same tables, indices and guest bits at every boot; where tables lie differs."""
    name, _ = await lab.boot()
    found = await lab.vms.TranslateAddress(pb.TranslateAddressRequest(name=name, address=0x1000))
    assert found.outcome == pb.TranslateAddressResponse.OUTCOME_TRANSLATED
    lines = []
    for step in found.guest_steps:
        lines.append("    " + " -> ".join(entry.table for entry in step.ept_steps))
        lines.append(f"{step.entry.table} [{step.entry.index}] {' '.join(step.entry.bits)}")
    lines.append(f"GVA {found.guest_virtual_address:#x} is GPA {found.guest_physical_address:#x}")
    lines += [f"    {entry.table} [{entry.index}] for {entry.input_address:#x}" for entry in found.ept_steps]
    golden("\n".join(lines) + "\n", HERE / "translation.txt")
    await lab.stop_vm(name)
