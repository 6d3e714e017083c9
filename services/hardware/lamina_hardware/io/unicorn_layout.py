"""Everything that the walker core uses of Unicorn 2.1.4 and that Unicorn does not document.

Offsets within the emulator's structures on x86-64 Linux, exported internal functions, and bit values of its internal
state. All of it is verified before use by `selftest.py`, in a process of its own; if anything differs the portable core
runs instead. No other module names an internal of the emulator.

Source: unicorn 2.1.4, qemu/target/i386/cpu.h, qemu/include/exec/exec-all.h, qemu/include/hw/core/cpu.h, and measured.
"""

from __future__ import annotations

import numpy as np

UNICORN_VERSION = "2.1.4"

# CPUX86State. The first words are the 16 general registers in hardware order.
REGS = np.uint64(0)
EIP = np.uint64(128)
EFLAGS = np.uint64(136)
DF = np.uint64(172)
HFLAGS = np.uint64(176)
SEGMENTS = np.uint64(184)  # ES CS SS DS FS GS, then LDTR at 328 and TR at 352
SEGMENT_STRIDE = np.uint64(24)  # selector u32 @0, base u64 @8, limit u32 @16, flags u32 @20
LDTR = np.uint64(328)
TR = np.uint64(352)
GDTR = np.uint64(376)
IDTR = np.uint64(400)
CR0 = np.uint64(424)
CR2 = np.uint64(440)
CR3 = np.uint64(448)
CR4 = np.uint64(456)
FPU_TOP = np.uint64(604)
FPU_STATUS = np.uint64(608)
FPU_CONTROL = np.uint64(610)
FPU_TAGS = np.uint64(612)
FPU_REGISTERS = np.uint64(624)
MXCSR = np.uint64(816)
XMM = np.uint64(824)
XMM_STRIDE = np.uint64(64)
ERROR_CODE = np.uint64(5384)
EXCEPTION_IS_INT = np.uint64(5388)
OLD_EXCEPTION = np.uint64(5496)
VMCB = np.uint64(5504)
INTERCEPTS = np.uint64(5520)

EFER = np.uint64(592)
SYSENTER_CS = np.uint64(4800)
SYSENTER_ESP = np.uint64(4808)
SYSENTER_EIP = np.uint64(4816)
STAR = np.uint64(4824)
LSTAR = np.uint64(4840)
CSTAR = np.uint64(4848)
SFMASK = np.uint64(4856)
KERNEL_GS_BASE = np.uint64(4864)
TSC_AUX = np.uint64(4896)
PAT = np.uint64(5280)
NO_EXCEPTION = np.uint64(0xFFFF_FFFF)

# hflags
HF_CPL = np.uint64(3)
HF_GUEST = np.uint64(1 << 21)

# The translation block that `tb_jmp_cache` points to.
TB_PC = np.uint64(0)
TB_SIZE = np.uint64(20)
TB_COUNT = np.uint64(22)
TB_CFLAGS = np.uint64(24)
TB_COUNT_LIMIT = np.uint64(0x7FFF)

# Distances between structures.
ENV_IN_CPU = 0x8A50
ENV_POINTER_IN_CPU = 296
JUMP_CACHE_IN_CPU = 312
INVALID_ADDRESS_IN_ENGINE = 1416

# Exported functions that are not part of the API.
SYMBOL_INVALIDATE = "tb_invalidate_phys_range_x86_64"
SYMBOL_LEAVE = "cpu_loop_exit_noexc_x86_64"

# Exit codes of the intercepts that arrive as interrupts: 0x100 + SVM exit code.
VMEXIT = np.uint64(0x100)
VMEXIT_MSR = np.uint64(0x17C)
VMEXIT_SHUTDOWN = np.uint64(0x17F)
INTERCEPT_MSR = np.uint64(1 << 0x1C)
INTERCEPT_SHUTDOWN = np.uint64(1 << 0x1F)
VMCB_MSR_BITMAP = 0x48
