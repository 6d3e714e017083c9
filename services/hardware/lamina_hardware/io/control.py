"""The control block of one core: what its compiled code and its Python side know together.

An array of 64-bit words, allocated once a core; compiled code gets its address. Words are named by their index here;
compiled code computes `block + 8 * index`. One writer at a time: the thread that runs the core, except REQUEST and
LIMIT, which others write to make it stop at its next block.
"""

from __future__ import annotations

import numpy as np

WORDS = 512

# Where things are; written once when the core is made.
RAM_BASE = np.uint64(0)
RAM_SIZE = np.uint64(1)
STATE_BASE = np.uint64(2)
BUS_HEAD = np.uint64(3)
ENGINE = np.uint64(4)  # uc_engine*
CPU = np.uint64(5)  # CPUState*; walker core only
ENV = np.uint64(6)  # the register file: CPUX86State*, or the portable core's own copy of the same layout
JUMP_CACHE = np.uint64(7)  # address of tb_jmp_cache; walker core only
SCRATCH = np.uint64(8)  # address of 64 bytes in this block for out-parameters
INVALID_ADDRESS = np.uint64(9)  # address of the word that holds the address of the last failed access
F_START = np.uint64(10)
F_STOP = np.uint64(11)
F_CONTROL = np.uint64(12)
F_REG_READ = np.uint64(13)
F_REG_WRITE = np.uint64(14)
F_INVALIDATE = np.uint64(16)
F_LEAVE = np.uint64(17)

# The context that runs.
RUN_PAGE = np.uint64(20)  # address of its run page
EPTP = np.uint64(21)  # root of its second stage, 0 for one stage
EXCEPTIONS = np.uint64(22)  # vectors that exit, one bit each
INTERCEPT_CPUID = np.uint64(23)
INTERCEPT_SYSCALL = np.uint64(24)
INPUT = np.uint64(25)  # what the holder answered to the INS at RIP, if one waits

# Budget, in instructions. A block is entered when CONSUMED + its count stays within LIMIT.
CONSUMED = np.uint64(30)
LIMIT = np.uint64(31)
BUDGET = np.uint64(32)
REQUEST = np.uint64(33)  # REQUEST_… bits set by others
BLOCK_PC = np.uint64(34)
BLOCK_SIZE = np.uint64(35)
BLOCK_COUNT = np.uint64(36)

# Why the emulator stopped.
STOP = np.uint64(40)  # STOP_…
STOP_A = np.uint64(41)
STOP_B = np.uint64(42)
STOP_C = np.uint64(43)
STOP_D = np.uint64(44)
STOP_E = np.uint64(45)

# What a walk that failed found.
FAULT = np.uint64(50)  # FAULT_…
FAULT_VA = np.uint64(51)
FAULT_CODE = np.uint64(52)  # page-fault error code; for FAULT_EPT one of FAULT_IN_…
FAULT_GPA = np.uint64(53)
FAULT_ACCESS = np.uint64(54)  # ACCESS_…

# What a walk that succeeded found.
WALK_PA = np.uint64(60)  # page address
WALK_RIGHTS = np.uint64(61)  # RIGHT_…

# Counters since the core was made.
FILLS = np.uint64(70)
WALK_FAULTS = np.uint64(71)
CODE_DROPS = np.uint64(72)

# The portable core.
PORTABLE = np.uint64(80)  # 1 in a portable core
SPECIAL = np.uint64(81)  # 1: the block that runs has instructions that exit before they run
F_READ_MANY = np.uint64(82)
F_WRITE_MANY = np.uint64(83)
F_RESTORE = np.uint64(84)
TEMPLATE_0 = np.uint64(85)  # a saved context of the emulator at ring 0
TEMPLATE_3 = np.uint64(86)  # and at ring 3
PULL_IDS = np.uint64(87)  # arrays of register numbers and of where in ENV they go, and how many
PULL_PLACES = np.uint64(88)
PULL_COUNT = np.uint64(89)
PUSH_IDS = np.uint64(90)
PUSH_PLACES = np.uint64(91)
PUSH_COUNT = np.uint64(92)
LOOK_IDS = np.uint64(93)  # those that a walk needs
LOOK_PLACES = np.uint64(94)
LOOK_COUNT = np.uint64(95)
MSR_PAIRS = np.uint64(96)  # (number, value) pairs of the MSRs

SCRATCH_WORDS = 100  # ten words

# Addresses of linked functions (`native.linked`).
L_WALK = np.uint64(110)
L_DECODE = np.uint64(111)
L_CODE_AT = np.uint64(112)
L_COUNT_BETWEEN = np.uint64(113)
L_LEAVE_AFTER = np.uint64(114)
L_LOAD = np.uint64(115)
L_STORE = np.uint64(116)
L_ANSWER_CPUID = np.uint64(117)
L_ANSWER_TIMESTAMP = np.uint64(118)
L_RETIRED = np.uint64(119)
L_DELIVER = np.uint64(120)
L_ENTER_SYSCALL = np.uint64(121)
L_PULL = np.uint64(122)
L_PUSH = np.uint64(123)
L_LOOK = np.uint64(124)
L_FINISH_BY_HAND = np.uint64(125)
L_FULL_ADDRESS = np.uint64(126)
L_FILL = np.uint64(127)

REQUEST_CANCEL = np.uint64(1)
REQUEST_PAUSE = np.uint64(2)
REQUEST_EVENT = np.uint64(4)  # an external interrupt waits for RFLAGS.IF

STOP_NONE = np.uint64(0)
STOP_BUDGET = np.uint64(1)
STOP_REQUEST = np.uint64(2)
STOP_SYSCALL = np.uint64(3)
STOP_INTERRUPT = np.uint64(4)  # A vector, B error code, C 1 for INT n
STOP_IO = np.uint64(5)  # A port, B size, C direction (1 out), D data, E RIP of an OUTS with repetitions left
STOP_CPUID = np.uint64(6)
STOP_TIMESTAMP = np.uint64(7)
STOP_INVALID = np.uint64(8)
STOP_CODE_WRITE = np.uint64(9)  # portable core: the frame A, of translated code, is about to be written
STOP_SPECIAL = np.uint64(10)  # portable core: the instruction at RIP is to be done by hand

FAULT_NONE = np.uint64(0)
FAULT_PAGE = np.uint64(1)
FAULT_EPT = np.uint64(2)
FAULT_CANONICAL = np.uint64(3)

FAULT_IN_TABLE = np.uint64(0)  # the second stage refused the address of a guest table entry
FAULT_IN_PAGE = np.uint64(1)  # it refused the address that the guest tables gave; its offset within the page is missing

ACCESS_READ = np.uint64(1)
ACCESS_WRITE = np.uint64(2)
ACCESS_EXECUTE = np.uint64(3)

RIGHT_READ = np.uint64(1)
RIGHT_WRITE = np.uint64(2)
RIGHT_EXECUTE = np.uint64(4)

NO_LIMIT = 1 << 62
