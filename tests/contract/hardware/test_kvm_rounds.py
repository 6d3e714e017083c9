"""Rounds of KVM cores with ports and devices: registers survive them, in one compiled call and in Python alike."""

from __future__ import annotations

import errno
import random
from array import array
from dataclasses import dataclass
from typing import Any

import pytest
from lamina.hardware.v1 import exit_controls_pb2
from tests.contract.hardware.conftest import RW, P
from tests.contract.hardware.kvm_bench import KERNEL_AT, bench, guest_of, variant
from tests.contract.hardware.snippets.cores import emulates

from lamina_hardware.io.kvm import core
from lamina_hardware.io.kvm.core import KvmCore
from lamina_hardware.io.kvm.fast_round import DONE, ENTERED, step
from lamina_kit.bus.run_page import ACCESS_READ, ACCESS_WRITE, DIRTY_GPRS, GPR_NAMES, ExitReason

pytestmark = pytest.mark.real_time("the cores are processors of the host")
__all__ = ["bench", "variant"]

DEVICE, DEVICE_GPA = 0x50_0000, 0xFE00_0000
RCX = 1
PORTS = {("out", 1): "e6", ("out", 2): "66e7", ("out", 4): "e7", ("in", 1): "e4", ("in", 2): "66e5", ("in", 4): "e5"}
MOVES = {("store", 1): 0x88, ("load", 1): 0x8A}  # of a byte; of more bytes the next number
LENGTH, TURNS = 40, 3


@dataclass(frozen=True, slots=True)
class Access:
    """An instruction with one access: `where` is a port, or the number of the register that moves."""

    kind: str
    size: int
    where: int

    def code(self) -> bytes:
        """Returns the instruction; a device is addressed without a register."""
        if (opcode := PORTS.get((self.kind, self.size))) is not None:
            return bytes.fromhex(opcode) + bytes([self.where])
        rex = 0x40 | (8 if self.size == 8 else 0) | (4 if self.where > 7 else 0)
        move = MOVES[self.kind, 1] + (self.size > 1)
        address = bytes([4 | (self.where & 7) << 3, 0x25]) + DEVICE.to_bytes(4, "little")
        return (b"\x66" if self.size == 2 else b"") + bytes([rex, move]) + address


def accesses(rng: random.Random) -> list[Access]:
    """Returns a program of random accesses."""
    found = []
    for _ in range(LENGTH):
        kind = rng.choice(("out", "out", "in", "in", "store", "store", "load"))
        if kind in ("out", "in"):
            found.append(Access(kind, rng.choice((1, 2, 4)), rng.randrange(0x80, 0x100)))
        else:
            found.append(Access(kind, rng.choice((1, 2, 4, 8)), rng.randrange(16)))
    return found


def value(rng: random.Random) -> int:
    """Returns what a general register may hold: anything, and often what is easily mistaken for something else."""
    return rng.choice((0, (1 << 64) - 1, rng.getrandbits(8), rng.getrandbits(64), rng.getrandbits(64)))


def check(record: Any, access: Access, registers: list[int], behind: int) -> None:
    """Checks what a round told of its access."""
    low = (1 << 8 * access.size) - 1
    assert record.rip == behind
    if access.kind in ("out", "in"):
        told = (record.reason, record.port, record.io_size, record.io_direction, record.io_count)
        assert told == (ExitReason.IO, access.where, access.size, int(access.kind == "out"), 1)
        assert record.io_data == (registers[0] & low if access.kind == "out" else 0)
        return
    assert (record.reason, record.gpa, record.access_size) == (ExitReason.MMIO, DEVICE_GPA, access.size)
    if access.kind == "store":
        assert (record.access, record.access_value) == (ACCESS_WRITE, registers[access.where] & low)
    else:
        assert (record.access, record.access_register) == (ACCESS_READ, access.where)


def answered(guest: Any, rng: random.Random, access: Access, registers: list[int]) -> list[int]:
    """Has the holder answer, and change what else it likes; returns the registers that the guest has then."""
    page, after = guest.page, list(registers)
    if rng.random() < 0.4:
        after = [value(rng) for _ in range(16)]
        page.gpr[:] = array("Q", after)
        page.dirty |= DIRTY_GPRS
    if access.kind == "in":
        page.rax = after[0] = value(rng)
        page.dirty |= DIRTY_GPRS
    if access.kind == "load":
        answer, kept = value(rng), registers[access.where]
        page.gpr[access.where] = answer
        page.dirty |= DIRTY_GPRS
        low = (1 << 8 * access.size) - 1
        after[access.where] = answer & low | (kept & ~low if access.size < 4 else 0)
    return after


def may_be_slow(access: Access, before: Access | None, registers: list[int]) -> bool:
    """Whether a round may go the way in Python: reads of devices, what brings their answers, OUT where it is odd."""
    if before is None or "load" in (access.kind, before.kind):
        return True
    return access.kind == "out" and (not emulates() or registers[RCX] == 0)


@pytest.mark.parametrize("quick", [True, False], ids=["compiled", "python"])
@pytest.mark.parametrize("seed", range(4))
async def test_registers_survive_rounds(bench: Any, monkeypatch: Any, seed: int, quick: bool) -> None:
    """Every general register is after each access what guest and holder made it; the compiled call is really taken."""
    rng = random.Random(seed)
    taken: list[int] = []
    ended: list[KvmCore] = []
    done = 0

    def seen(block: int) -> int:
        left = step(block)
        if left or not ended:  # behind a slice the context was in another thread, which is looked at once
            taken.append(left)
        if left & DONE:
            ended.clear()
        return left

    def paused(one: KvmCore) -> None:
        ended.append(one)
        pause(one)

    pause = KvmCore.pause
    monkeypatch.setattr(KvmCore, "pause", paused)
    monkeypatch.setattr(core, "step", seen)
    if not quick:
        monkeypatch.setattr(core, "arm", lambda *_: None)
    program = accesses(rng)
    code = [access.code() for access in program]
    jump = b"\xe9" + (-sum(map(len, code)) - 5).to_bytes(4, "little", signed=True)
    guest = await guest_of(bench, b"".join(code) + jump)
    guest.tables.map(DEVICE, DEVICE_GPA, P | RW)
    device = exit_controls_pb2.DeviceRange(gpa=DEVICE_GPA, size_bytes=4096)
    wanted = exit_controls_pb2.ExitControls(device_ranges=[device], ports=exit_controls_pb2.PortControls(all=True))
    request = exit_controls_pb2.SetExitControlsRequest(handle=guest.context.handle, controls=wanted)
    await bench.cpu.SetExitControls(request)
    registers, before = [value(rng) for _ in range(16)], None
    guest.page.gpr[:] = array("Q", registers)
    guest.page.dirty |= DIRTY_GPRS
    for turn in range(TURNS):
        behind = KERNEL_AT
        for access, instruction in zip(program, code, strict=True):
            behind += len(instruction)
            taken.clear()
            record = await guest.run()
            check(record, access, registers, behind)
            found = dict(zip(GPR_NAMES, guest.page.gpr, strict=True))
            assert found == dict(zip(GPR_NAMES, registers, strict=True)), (turn, access)
            if not quick:
                assert taken == []
            elif turn and not may_be_slow(access, before, registers):
                odd = [left for left in taken if not left & DONE and left != ENTERED | errno.EINTR]
                assert odd == [], (turn, access, "all but the end of a slice is compiled")
                done += any(left & DONE for left in taken)
            registers, before = answered(guest, rng, access, registers), access
    assert done > TURNS * LENGTH // 4 or not quick
