"""The control block of one core: what its compiled code and its Python side know together.

An array of 64-bit words, allocated once a core; compiled code gets its address. Words are named by their index here;
compiled code computes `block + 8 * index`. One writer at a time: the thread that runs the core, except REQUEST and
LIMIT, which others write to make it stop at its next block.
"""

from __future__ import annotations

from lamina_hardware.io.machine_word import u64

WORDS = 512

# Where things are; written once when the core is made.
RAM_BASE = u64(0)
RAM_SIZE = u64(1)
STATE_BASE = u64(2)
BUS_HEAD = u64(3)
ENGINE = u64(4)  # uc_engine*
CPU = u64(5)  # CPUState*; walker core only
ENV = u64(6)  # the register file: CPUX86State*, or the portable core's own copy of the same layout
JUMP_CACHE = u64(7)  # address of tb_jmp_cache; walker core only
SCRATCH = u64(8)  # address of 64 bytes in this block for out-parameters
INVALID_ADDRESS = u64(9)  # address of the word that holds the address of the last failed access
F_START = u64(10)
F_STOP = u64(11)
F_CONTROL = u64(12)
F_REG_READ = u64(13)
F_REG_WRITE = u64(14)
F_INVALIDATE = u64(16)
F_LEAVE = u64(17)

# The context that runs.
RUN_PAGE = u64(20)  # address of its run page
EPTP = u64(21)  # root of its second stage, 0 for one stage
EXCEPTIONS = u64(22)  # vectors that exit, one bit each
INTERCEPT_CPUID = u64(23)
INTERCEPT_SYSCALL = u64(24)
INPUT = u64(25)  # what the holder answered to the INS at RIP, if one waits
CONTROLS = u64(26)  # address of its table of exit controls; 0: it has those that its creation implies
BEGAN = u64(27)  # CONSUMED when this slice began
MSR_MAP = u64(28)  # address of the bitmap of MSRs that the emulator hands over; walker core only
CONTROLS_SERIAL = u64(29)  # which table the emulator goes by; 0: none, as the creation implies. Walker core only
MSR_DEFAULT = u64(37)

FAILURES = u64(39)  # frames of RAM whose memory failed: 0 spares walks the look at each table
OBSERVATION = u64(38)  # address of what is kept of an observed context (`observation/hooks.py`), 0: it is not observed

# Budget, in instructions. A block is entered when CONSUMED + its count stays within LIMIT.
CONSUMED = u64(30)
LIMIT = u64(31)
BUDGET = u64(32)
REQUEST = u64(33)  # REQUEST_… bits set by others
BLOCK_PC = u64(34)
BLOCK_SIZE = u64(35)
BLOCK_COUNT = u64(36)

# Why the emulator stopped.
STOP = u64(40)  # STOP_…
STOP_A = u64(41)
STOP_B = u64(42)
STOP_C = u64(43)
STOP_D = u64(44)
STOP_E = u64(45)
STOP_ERROR = u64(46)  # what the emulator itself returned; not 0 without a reason of ours is a defect

# What a walk that failed found.
FAULT = u64(50)  # FAULT_…
FAULT_VA = u64(51)
FAULT_CODE = u64(52)  # page-fault error code; for FAULT_EPT one of FAULT_IN_…
FAULT_GPA = u64(53)
FAULT_ACCESS = u64(54)  # ACCESS_… of the instruction
FAULT_STAGE_ACCESS = u64(55)  # ACCESS_… that the second stage refused: a write for a guest's table entry
FAULT_STAGE_RIGHTS = u64(56)  # RIGHT_… that the entries of the second stage left, 0 when one was not present
FAULT_MISCONFIGURED = u64(57)  # 1: an entry of the second stage was malformed (with FAULT_EPT)

# What a walk that succeeded found.
WALK_PA = u64(60)  # page address
WALK_RIGHTS = u64(61)  # RIGHT_…

# What a walk did, however it ended.
WALK_SHIFT = u64(62)  # log2 of the bytes of the first stage's page
WALK_SECOND_SHIFT = u64(63)  # and of the second stage's, or 63
WALK_READS = u64(64)  # entries of the first stage read
WALK_SECOND_READS = u64(65)  # entries of the second stage read, added up over a walk
WALK_KEPT = u64(70)  # upper entries of the second stage that the walk has read: which 2 MiB the last small page was in,
WALK_KEPT_TABLE = u64(71)  # plus 1 (0: none), the table of it, and the rights that are left there; valid while
WALK_KEPT_RIGHTS = u64(72)  # WALK_SECOND_READS is not 0
WALK_KEPT_UPPER = u64(73)  # and the same of the last 1 GiB
WALK_KEPT_UPPER_TABLE = u64(74)
WALK_KEPT_UPPER_RIGHTS = u64(75)
GATE = u64(76)  # what a delivery read: its gate, the gate's upper half, and the descriptor of its code
GATE_HIGH = u64(77)
GATE_CODE = u64(78)
WALK_LEAF = u64(66)  # RW and US of all levels of the first stage, and G of its leaf

# Counters since the core was made, one after the other from FILLS on: `domain.counts.EVENTS` in its order.
FILLS = u64(400)
WALK_FAULTS = u64(401)
CODE_DROPS = u64(402)
REFERENCES = u64(403)
SECOND_REFERENCES = u64(404)
FILLS_4K = u64(405)
FILLS_2M = u64(406)
FILLS_1G = u64(407)
ACCESSED_SET = u64(408)
DIRTY_SET = u64(409)
INTERRUPTS = u64(410)
TLB_HITS = u64(411)  # of observed contexts
EXCEPTION_COUNTS = u64(412)  # 32 words, by vector
COUNTER_WORDS = 44

# Interrupts of the context that runs.
HALTS = u64(460)  # 1: HLT does not exit, the context halts
PENDING_NMI = u64(461)  # 1: an NMI waits
PENDING_VECTOR = u64(462)  # 1: a vector of the local APIC waits for RFLAGS.IF
RAISE = u64(463)  # 1 + vector of an exception that the instruction at RIP raises, with error code 0
APIC_PAGE = u64(464)  # guest physical address of the APIC's registers, with bit 0 set; 0 without them
APIC_MSRS = u64(465)  # 1: they are MSRs
APIC_REGISTER = u64(466)  # an access: offset of the register
APIC_WRITE = u64(467)  # 1 for a write of APIC_VALUE
APIC_VALUE = u64(468)
APIC_TARGET = u64(469)  # where the value of a read goes

# Breakpoints of the context that runs (`breakpoints.py`).
BREAKS = u64(160)  # ARMED_… that the core has hooks for; 0: none
BREAKS_WANTED = u64(161)  # those that the context's registers ask for
BREAK_HITS = u64(162)  # which of the four were hit and have not been told yet
BREAK_FILLED = u64(163)  # which have their page looked up for this instruction, at BREAK_PAGES + number
BREAK_PAGES = u64(164)
BREAK_CROSSES = u64(168)  # bytes in a second page that an access of this instruction had, CROSSES_WRITE
BREAK_SEEN = u64(169)  # 1: an instruction began since the emulator was started
BREAK_RESUMED = u64(170)  # linear address of the instruction that runs under RFLAGS.RF
BREAK_FLAG = u64(171)  # portable core: RFLAGS.RF at the beginning of the block

# The portable core.
PORTABLE = u64(80)  # 1 in a portable core
SPECIAL = u64(81)  # 1: the block that runs has instructions that exit before they run
F_READ_MANY = u64(82)
F_WRITE_MANY = u64(83)
F_RESTORE = u64(84)
TEMPLATE_0 = u64(85)  # a saved context of the emulator at ring 0
TEMPLATE_3 = u64(86)  # and at ring 3
PULL_IDS = u64(87)  # arrays of register numbers and of where in ENV they go, and how many
PULL_PLACES = u64(88)
PULL_COUNT = u64(89)
PUSH_IDS = u64(90)
PUSH_PLACES = u64(91)
PUSH_COUNT = u64(92)
LOOK_IDS = u64(93)  # those that a walk needs
LOOK_PLACES = u64(94)
LOOK_COUNT = u64(95)
MSR_PAIRS = u64(96)  # (number, value) pairs of the MSRs
STUB_PAGE = u64(97)  # address of the page of `io/emulator/portable/mode_entry.py`
STUB_RUNS = u64(98)  # 1 while its code runs
ENTERED = u64(156)  # 1: the stub has set the segments of the run
PAGING_HIDDEN = u64(99)  # 1: the emulator has CR0.PG clear, the context has it set

SCRATCH_WORDS = 100  # ten words

# Addresses of linked functions (`native.linked`).
L_WALK = u64(110)
L_DECODE = u64(111)
L_CODE_AT = u64(112)
L_COUNT_BETWEEN = u64(113)
L_LEAVE_AFTER = u64(114)
L_LOAD = u64(115)
L_STORE = u64(116)
L_ANSWER_CPUID = u64(117)
L_ANSWER_TIMESTAMP = u64(118)
L_RETIRED = u64(119)
L_DELIVER = u64(120)
L_ENTER_SYSCALL = u64(121)
L_PULL = u64(122)
L_PUSH = u64(123)
L_LOOK = u64(124)
L_FINISH_BY_HAND = u64(125)
L_FULL_ADDRESS = u64(126)
L_FILL = u64(127)
L_APIC_PAGE = u64(300)
L_CLASSIFY = u64(130)
L_POST = u64(131)
L_INTERCEPTED = u64(132)
L_UNKNOWN = u64(133)
L_DEVICE_ACCESS = u64(134)
L_QUALIFY = u64(135)
L_PORT_RIGHT = u64(136)
L_CONTROL_REGISTER = u64(137)
L_LOOK_UP = u64(150)
L_COUNT_WALK = u64(151)
L_DERIVE_MODE = u64(152)
L_WALK_LEGACY = u64(153)
L_LOAD_PDPTES = u64(154)
L_DELIVER_LEGACY = u64(155)
L_BREAKS_BEFORE = u64(157)

REQUEST_CANCEL = u64(1)
REQUEST_PAUSE = u64(2)
REQUEST_EVENT = u64(4)  # an external interrupt waits for RFLAGS.IF
REQUEST_NMI = u64(8)  # an NMI waits for the end of the one before

STOP_NONE = u64(0)
STOP_BUDGET = u64(1)
STOP_REQUEST = u64(2)
STOP_SYSCALL = u64(3)
STOP_INTERRUPT = u64(4)  # A vector, B error code, C 1 for INT n
STOP_IO = u64(5)  # A port, B size, C direction (1 out), D data, E RIP of an OUTS with repetitions left
STOP_CPUID = u64(6)
STOP_TIMESTAMP = u64(7)
STOP_INVALID = u64(8)
STOP_CODE_WRITE = u64(9)  # portable core: the frame A, of translated code, is about to be written
STOP_SYSENTER = u64(11)
STOP_FAULT = u64(12)  # an access that a hook made failed at address A; the fault is in the block
STOP_BREAK = u64(13)  # in front of an instruction that is armed (bits A), or behind one that hit (0)
STOP_SPECIAL = u64(10)  # portable core: the instruction at RIP is to be done by hand

FAULT_NONE = u64(0)
FAULT_PAGE = u64(1)
FAULT_EPT = u64(2)
FAULT_CANONICAL = u64(3)
FAULT_MEMORY = u64(6)  # the memory of the page failed; FAULT_GPA is the page as the first stage gave it
FAULT_DEVICE = u64(5)  # the guest physical address is a device's, by the context's exit controls
FAULT_APIC = u64(4)  # the access is one to the local APIC's registers

FAULT_IN_TABLE = u64(0)  # the second stage refused the address of a guest table entry
FAULT_IN_PDPTES = u64(2)  # it refused the address of the four entries that PAE paging keeps in registers
FAULT_IN_PAGE = u64(1)  # it refused the address that the guest tables gave; its offset within the page is missing

ACCESS_READ = u64(1)
ACCESS_WRITE = u64(2)
ACCESS_EXECUTE = u64(3)

RIGHT_READ = u64(1)
RIGHT_WRITE = u64(2)
RIGHT_EXECUTE = u64(4)

NO_LIMIT = 1 << 62
