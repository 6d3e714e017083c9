"""The portable core: the same machine on the emulator's public interface alone.

It runs where the walker core's self-test fails: another build of the emulator, another architecture. It is slower by
one to two orders of magnitude, and cannot tell the error code of exceptions other than page faults, nor #TS, #NP and
#SS from #GP. Other modes than 64-bit it enters by code of its own (`io/emulator/portable/mode_entry.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from unicorn import x86_const

from lamina_hardware.domain.contexts.exit_controls import ExitControls
from lamina_hardware.io.emulator import api
from lamina_hardware.io.emulator import capabilities as core_capabilities
from lamina_hardware.io.emulator.core import CoreCell
from lamina_hardware.io.emulator.hooks import walker
from lamina_hardware.io.emulator.portable import hooks as portable_hooks
from lamina_hardware.io.emulator.portable import mode_entry, registers
from lamina_hardware.io.emulator.state import control_block
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.exit_table import ControlTable
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import Internal

_STUB = (1 << 46) + (1 << 20)
"""Physical and virtual address of the page with the code that goes to ring 3; far above any RAM."""
_FILE_BYTES = 8192

_SEGMENT_REGISTERS = (
    x86_const.UC_X86_REG_ES, x86_const.UC_X86_REG_CS, x86_const.UC_X86_REG_SS, x86_const.UC_X86_REG_DS,
)  # fmt: skip


class PortableCore(CoreCell):
    """One core on the portable path."""

    path = "portable"
    hooks_instructions = False
    capabilities: tuple[str, ...] = core_capabilities.PORTABLE

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus)
        self._file = np.zeros(_FILE_BYTES, dtype=np.uint8)
        self._pairs = np.zeros(1024, dtype=np.uint8)
        self._kept: list[NDArray[np.generic]] = []
        env = self._file.ctypes.data
        self.engine.map(0, bus.size, bus.base)
        zero, user = self._save_levels()
        self.wire(bus, env, 0)
        self._put(control_block.PORTABLE, 1)
        self._msr_default = ControlTable(ExitControls()).msr_map
        self._put(control_block.MSR_DEFAULT, self._msr_default.ctypes.data)
        self._put(control_block.MSR_PAIRS, self._pairs.ctypes.data)
        self._put(control_block.STUB_PAGE, self._make_stub())
        self._put(control_block.TEMPLATE_0, zero)
        self._put(control_block.TEMPLATE_3, user)
        for index, name in (
            (control_block.F_READ_MANY, "uc_reg_read_batch"),
            (control_block.F_WRITE_MANY, "uc_reg_write_batch"),
            (control_block.F_RESTORE, "uc_context_restore"),
        ):
            self._put(index, api.function(name))
        self._list_registers(env)
        self._register_hooks()

    def _save_levels(self) -> tuple[int, int]:
        """Saves the emulator's state at ring 0 and at ring 3; goes there by IRETQ, which the API allows."""
        page = self._room(1)
        page[:4] = np.frombuffer(b"\x48\xcf\xf4\xf4", dtype=np.uint8)  # iretq; hlt
        frame = np.array([_STUB + 2, 0x33, 0x2, _STUB + 0x800, 0x2B], dtype=np.uint64)
        page[0x400:0x428] = frame.view(np.uint8)
        gdt = np.array([0] * 5 + [0x00CF_F300_0000_FFFF, 0x00AF_FB00_0000_FFFF], dtype=np.uint64)
        page[0x500 : 0x500 + gdt.nbytes] = gdt.view(np.uint8)
        engine = self.engine
        engine.map(_STUB, 4096, page.ctypes.data)
        engine.use_own_tlb()
        engine.write(api.REG_CR4, 0x620)
        engine.write_msr(0xC000_0080, 0xD01)
        engine.write(api.REG_CR0, 0x8001_0033)
        engine.write_table(x86_const.UC_X86_REG_GDTR, int(mode_entry.STUB + mode_entry.TABLE), 0xFFFF)
        engine.write(x86_const.UC_X86_REG_RSP, int(mode_entry.STUB + mode_entry.FRAME))
        zero = engine.save()
        engine.write_table(x86_const.UC_X86_REG_GDTR, _STUB + 0x500, 0x37)
        engine.write(x86_const.UC_X86_REG_RSP, _STUB + 0x400)
        engine.run_identity(_STUB)
        if engine.read(x86_const.UC_X86_REG_CS) & 0xFFFF != 0x33:
            raise Internal("The emulator did not go to ring 3.", reason="CORE_RING_3")
        return zero, engine.save()

    def _room(self, count: int) -> NDArray[np.uint8]:
        """Returns pages of zeros that live as long as the core."""
        room = np.zeros((count + 1) * 4096, dtype=np.uint8)
        self._kept.append(room)
        skew = -room.ctypes.data % 4096
        return room[skew : skew + count * 4096]

    def _make_stub(self) -> int:
        """Makes the page of code that goes to other modes; returns its address in this process."""
        page = self._room(int(mode_entry.BYTES) >> 12)
        page[: len(mode_entry.CODE_BYTES)] = np.frombuffer(mode_entry.CODE_BYTES, dtype=np.uint8)
        self.engine.map(int(mode_entry.STUB), int(mode_entry.BYTES), page.ctypes.data)
        return int(page.ctypes.data)

    def _list_registers(self, env: int) -> None:
        """Lists the registers that are exchanged: number, and where each lies in the register file."""
        pairs: list[tuple[int, int]] = [
            (register, env + int(at.REGS) + 8 * n) for n, register in enumerate(api.GENERAL_REGISTERS)
        ]
        flags = (x86_const.UC_X86_REG_RFLAGS, env + int(at.EFLAGS))
        selectors = [(register, env + int(at.SEGMENTS) + 24 * n) for n, register in enumerate(_SEGMENT_REGISTERS)]
        controls = [
            (api.REG_CR0, env + int(at.CR0)),
            (x86_const.UC_X86_REG_CR2, env + int(at.CR2)),
            (x86_const.UC_X86_REG_CR3, env + int(at.CR3)),
            (api.REG_CR4, env + int(at.CR4)),
        ]
        tables = [
            (x86_const.UC_X86_REG_GDTR, env + int(at.GDTR)),
            (x86_const.UC_X86_REG_IDTR, env + int(at.IDTR)),
            (x86_const.UC_X86_REG_LDTR, env + int(at.LDTR)),
            (x86_const.UC_X86_REG_TR, env + int(at.TR)),
            (x86_const.UC_X86_REG_FS_BASE, env + int(at.SEGMENTS) + 24 * 4 + 8),
            (x86_const.UC_X86_REG_GS_BASE, env + int(at.SEGMENTS) + 24 * 5 + 8),
        ]
        fpu = [
            (x86_const.UC_X86_REG_FPCW, env + int(at.FPU_CONTROL)),
            (x86_const.UC_X86_REG_FPSW, env + int(at.FPU_STATUS)),
            (x86_const.UC_X86_REG_FPTAG, self._pairs.ctypes.data + int(registers.TAG_OFFSET)),
            (x86_const.UC_X86_REG_MXCSR, env + int(at.MXCSR)),
            *((x86_const.UC_X86_REG_FP0 + n, env + int(at.FPU_REGISTERS) + 16 * n) for n in range(8)),
            *((x86_const.UC_X86_REG_XMM0 + n, env + int(at.XMM) + 64 * n) for n in range(16)),
        ]
        msrs = []
        for n, number in enumerate(registers.MSR_NUMBERS):
            self._pairs[16 * n : 16 * n + 4] = np.frombuffer(number.to_bytes(4, "little"), dtype=np.uint8)
            msrs.append((x86_const.UC_X86_REG_MSR, self._pairs.ctypes.data + 16 * n))
        rip = (x86_const.UC_X86_REG_RIP, env + int(at.EIP))
        everything = [*msrs, *controls, *pairs, *selectors, *tables, *fpu, flags]
        self._list(control_block.PUSH_IDS, control_block.PUSH_PLACES, control_block.PUSH_COUNT, everything)
        self._list(control_block.PULL_IDS, control_block.PULL_PLACES, control_block.PULL_COUNT, [*everything, rip])
        looked = [selectors[1], controls[0], controls[2], controls[3], flags, rip]
        self._list(control_block.LOOK_IDS, control_block.LOOK_PLACES, control_block.LOOK_COUNT, looked)

    def _list(self, ids: Any, places: Any, count: Any, entries: list[tuple[int, int]]) -> None:
        numbers = np.array([number for number, _ in entries], dtype=np.int32)
        addresses = np.array([address for _, address in entries], dtype=np.uint64)
        self._kept += [numbers, addresses]
        self._put(ids, numbers.ctypes.data)
        self._put(places, addresses.ctypes.data)
        self._put(count, len(entries))

    def _register_hooks(self) -> None:
        hook = self.engine.hook
        hook(api.HOOK_FILL, portable_hooks.on_fill_portable.address, self.address)
        hook(api.HOOK_BLOCK, portable_hooks.on_block_portable.address, self.address)
        hook(api.HOOK_CODE, portable_hooks.on_code.address, self.address)
        hook(api.HOOK_INTERRUPT, portable_hooks.on_interrupt_portable.address, self.address)
        hook(api.HOOK_INVALID, walker.on_invalid.address, self.address)
        hook(api.HOOK_INSTRUCTION, walker.on_syscall.address, self.address, api.SYSCALL)
        hook(api.HOOK_INSTRUCTION, walker.on_sysenter.address, self.address, api.SYSENTER)
        hook(api.HOOK_INSTRUCTION, portable_hooks.on_in_portable.address, self.address, api.IN)
        hook(api.HOOK_INSTRUCTION, portable_hooks.on_out_portable.address, self.address, api.OUT)

    def drop_frames(self, frames: Iterable[int]) -> None:
        """Drops all translated code: the public interface drops by virtual address or everything."""
        self.engine.flush_code()
