"""Everything that the walker core uses of Unicorn 2.1.4 and that Unicorn does not document.

Offsets within the emulator's structures on x86-64 Linux, exported internal functions, and bit values of its internal
state. All of it is verified before use by `selftest.py`, in a process of its own; if anything differs the portable core
runs instead. No other module names an internal of the emulator.

Source: unicorn 2.1.4, qemu/target/i386/cpu.h, qemu/include/exec/exec-all.h, qemu/include/hw/core/cpu.h, and measured.
"""

from __future__ import annotations

from lamina_hardware.io.machine_word import u64

UNICORN_VERSION = "2.1.4"

# CPUX86State. The first words are the 16 general registers in hardware order.
REGS = u64(0)
EIP = u64(128)
EFLAGS = u64(136)
DF = u64(172)
HFLAGS = u64(176)
HFLAGS2 = u64(180)
SEGMENTS = u64(184)  # ES CS SS DS FS GS, then LDTR at 328 and TR at 352
SEGMENT_STRIDE = u64(24)  # selector u32 @0, base u64 @8, limit u32 @16, flags u32 @20
LDTR = u64(328)
TR = u64(352)
GDTR = u64(376)
IDTR = u64(400)
CR0 = u64(424)
CR2 = u64(440)
CR3 = u64(448)
CR4 = u64(456)
FPU_TOP = u64(604)
FPU_STATUS = u64(608)
FPU_CONTROL = u64(610)
FPU_TAGS = u64(612)
FPU_REGISTERS = u64(624)
MXCSR = u64(816)
XMM = u64(824)
XMM_STRIDE = u64(64)
ERROR_CODE = u64(5384)
EXCEPTION_IS_INT = u64(5388)
OLD_EXCEPTION = u64(5496)
VMCB = u64(5504)
INTERCEPTS = u64(5520)
INTERCEPT_CR_READ = u64(5528)  # 16 bits each, one a register
INTERCEPT_CR_WRITE = u64(5530)
INTERCEPT_DR_READ = u64(5532)
INTERCEPT_DR_WRITE = u64(5534)

EFER = u64(592)
SYSENTER_CS = u64(4800)
SYSENTER_ESP = u64(4808)
SYSENTER_EIP = u64(4816)
STAR = u64(4824)
LSTAR = u64(4840)
CSTAR = u64(4848)
SFMASK = u64(4856)
KERNEL_GS_BASE = u64(4864)
TSC_AUX = u64(4896)
PAT = u64(5280)
NO_EXCEPTION = u64(0xFFFF_FFFF)
FEATURES_7 = u64(5648)  # EBX of CPUID leaf 7: what the emulator believes its processor to have
FEATURE_SMEP, FEATURE_SMAP = 1 << 7, 1 << 20

# The TLB, in front of CPUX86State: for each mode of access (ring 0 under SMAP, ring 3, ring 0) a mask and a table.
TLB_TABLES = -64
TLB_MODES = 3
TLB_USER_MODE = 1
TLB_WINDOWS = tuple(u64(before) for before in (2144, 1448, 752))  # bytes in front of CPUX86State
"""Where each mode has the host's time, in nanoseconds, from which it judges after 0.1 s whether to shrink its table."""
TLB_WINDOW_NEVER = u64(1 << 62)
TLB_ENTRY_BYTES = 64  # addresses for reads, writes and fetches, then the physical page

# hflags
HF_CPL = u64(3)
HF_CS32, HF_SS32, HF_ADDSEG, HF_PE = (u64(1 << bit) for bit in (4, 5, 6, 7))
HF_LMA, HF_CS64 = u64(1 << 14), u64(1 << 15)
HF_MODE = HF_CS32 | HF_SS32 | HF_ADDSEG | HF_PE | HF_LMA | HF_CS64
HF_GUEST = u64(1 << 21)
HF_SHADOW = u64(1 << 3)  # STI or MOV SS holds interrupts back
HF2_NMI = u64(1 << 2)  # an NMI is being handled; IRET clears it

# The translation block that `tb_jmp_cache` points to.
TB_PC = u64(0)
TB_SIZE = u64(20)
TB_COUNT = u64(22)
TB_CFLAGS = u64(24)
TB_COUNT_LIMIT = u64(0x7FFF)

# Distances between structures.
ENV_IN_CPU = 0x8A50
ENV_POINTER_IN_CPU = 296
JUMP_CACHE_IN_CPU = 312
INVALID_ADDRESS_IN_ENGINE = 1416

# Exported functions that are not part of the API.
SYMBOL_INVALIDATE = "tb_invalidate_phys_range_x86_64"
SYMBOL_LEAVE = "cpu_loop_exit_noexc_x86_64"

# Exit codes of the intercepts that arrive as interrupts: 0x100 + SVM exit code.
VMEXIT = u64(0x100)
VMEXIT_CR_READ = u64(0x100)  # + number; CLTS and LMSW count as writes of CR0, SMSW as a read
VMEXIT_CR_WRITE = u64(0x110)
VMEXIT_DR_READ = u64(0x120)
VMEXIT_DR_WRITE = u64(0x130)
VMEXIT_TABLE = u64(0x166)  # reads of IDTR, GDTR, LDTR, TR, then writes of the same
VMEXIT_TABLE_END = u64(0x16E)
VMEXIT_RDPMC = u64(0x16F)
VMEXIT_PAUSE = u64(0x177)
VMEXIT_INVLPG = u64(0x179)
VMEXIT_MSR = u64(0x17C)
VMEXIT_SHUTDOWN = u64(0x17F)
VMEXIT_WBINVD = u64(0x189)  # INVD too
INTERCEPT_TABLES = u64(0xFF << 0x06)
INTERCEPT_RDPMC = u64(1 << 0x0F)
INTERCEPT_PAUSE = u64(1 << 0x17)
INTERCEPT_INVLPG = u64(1 << 0x19)
INTERCEPT_WBINVD = u64(1 << 0x29)
INTERCEPT_MSR = u64(1 << 0x1C)
INTERCEPT_SHUTDOWN = u64(1 << 0x1F)
VMCB_MSR_BITMAP = 0x48
