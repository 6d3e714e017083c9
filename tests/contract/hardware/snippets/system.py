"""Instructions of systems: CPUID, model-specific registers, time, hypercalls, descriptor tables, debug registers."""

from __future__ import annotations

from typing import Any

from lamina.hardware.v1 import exit_controls_pb2 as pb
from tests.contract.hardware.snippets.checks import both, equal
from tests.contract.hardware.snippets.places import GDT, IDT, KDATA, TSS
from tests.contract.hardware.snippets.snippet import ZF, Snippet

from lamina_kit.bus.run_page import DIRTY_GPRS, CpuidEntry, ExitReason, ExitRecord, Segment

HLT = ExitReason.HLT
TRAP_HLT = pb.TRAPPED_INSTRUCTION_HLT
VENDOR = CpuidEntry(0, 0, 13, 0x756E_6547, 0x6C65_746E, 0x4965_6E69)


def trapping(*instructions: int, **more: Any) -> dict[str, Any]:
    """Returns controls under which HLT and these instructions exit."""
    return {"instructions": [TRAP_HLT, *instructions], **more}


def give(**registers: int) -> Any:
    """Returns a holder that puts values into registers at the first exit."""

    def answer(machine: Any, number: int, record: ExitRecord) -> None:
        for name, value in registers.items():
            setattr(machine.page, name, value)
        machine.page.dirty = DIRTY_GPRS

    return answer


def exited(**fields: int) -> Any:
    """Returns the check of fields of the first exit record."""

    def check(seen: Any) -> None:
        found = {name: getattr(seen.records[0], name) for name in fields}
        assert found == fields, found

    return check


SNIPPETS = (
    Snippet(
        "cpuid_from_the_page",
        "A CPUID leaf that the page's table has is answered without an exit; upper halves are cleared.",
        """
        mov rax, 0xffffffff00000000
        mov ecx, 0
        cpuid
        hlt
        """,
        prepare=lambda machine: machine.page.set_cpuid((VENDOR,)),
        registers={"rax": 13, "rbx": 0x756E_6547, "rcx": 0x6C65_746E, "rdx": 0x4965_6E69},
    ),
    Snippet(
        "cpuid_exits",
        "CPUID that is trapped exits behind itself, and the holder's registers are what the guest finds.",
        "mov eax, 0x40000000\nxor ecx, ecx\ncpuid\nhlt",
        controls=trapping(pb.TRAPPED_INSTRUCTION_CPUID),
        exits=(ExitReason.CPUID, HLT),
        answer=give(rax=1, rbx=2, rcx=3, rdx=4),
        registers={"rax": 1, "rbx": 2, "rcx": 3, "rdx": 4},
    ),
    Snippet(
        "model_registers_kept",
        "STAR, LSTAR, SFMASK and the bases of FS and GS are written and read without an exit.",
        "\n".join(
            f"mov ecx, {number:#x}\nmov eax, {0x1000 + number & 0xFF:#x}\nxor edx, edx\nwrmsr\nrdmsr\nadd rbx, rax"
            for number in (0xC000_0081, 0xC000_0082, 0xC000_0084, 0xC000_0100, 0xC000_0101, 0xC000_0102)
        )
        + "\nhlt",
        start={"rbx": 0},
        registers={"rbx": 0x81 + 0x82 + 0x84 + 0 + 1 + 2, "star": 0x81, "lstar": 0x82, "sfmask": 0x84, "gs_base": 1},
    ),
    Snippet(
        "efer",
        "RDMSR of EFER shows long mode active, enabled, NXE and SCE.",
        "mov ecx, 0xc0000080\nrdmsr\nhlt",
        registers={"rax": 0xD01, "rdx": 0},
    ),
    Snippet(
        "model_register_read_exits",
        "RDMSR of a register that the controls name exits behind itself; EDX:EAX is the holder's.",
        "mov ecx, 0x8b\nrdmsr\nhlt",
        controls=trapping(msrs=pb.MsrControls(reads=[pb.MsrRange(first=0x8B, count=1)])),
        exits=(ExitReason.MSR, HLT),
        answer=give(rax=0x11, rdx=0x22),
        registers={"rax": 0x11, "rdx": 0x22},
        check=exited(io_direction=0),
    ),
    Snippet(
        "model_register_write_exits",
        "WRMSR of a register that the controls name exits behind itself with EDX:EAX.",
        "mov ecx, 0x8b\nmov eax, 0x33\nmov edx, 0x44\nwrmsr\nhlt",
        controls=trapping(msrs=pb.MsrControls(writes=[pb.MsrRange(first=0x8B, count=1)])),
        exits=(ExitReason.MSR, HLT),
        check=exited(io_direction=1, io_data=0x44_0000_0033),
    ),
    Snippet(
        "model_register_unknown",
        "RDMSR of a register that nobody named is #GP(0).",
        """
        mov ecx, 0x1234567
    fault:
        rdmsr
        hlt
        """,
        controls=trapping(),
        faults=((13, 0, "fault", None),),
    ),
    Snippet(
        "hypercall",
        "VMCALL exits behind itself, and the guest goes on with the holder's answer.",
        "mov eax, 5\nmov ebx, 6\nvmcall\nhlt",
        controls=trapping(pb.TRAPPED_INSTRUCTION_HYPERCALL),
        exits=(ExitReason.HYPERCALL, HLT),
        answer=give(rax=0x1000),
        registers={"rax": 0x1000, "rbx": 6},
    ),
    Snippet(
        "hypercall_without_a_hypervisor",
        "VMCALL that is not trapped is #UD.",
        """
    fault:
        vmcall
        hlt
        """,
        controls=trapping(),
        faults=((6, 0, "fault", None),),
    ),
    Snippet(
        "time_from_the_page",
        "RDTSC is answered from the page when it says so, RDTSCP with TSC_AUX.",
        "rdtscp\nhlt",
        controls=trapping(),
        prepare=lambda machine: _clock(machine),
        registers={"rcx": 5},
        check=lambda seen: _between(seen.machine.page.rdx << 32 | seen.machine.page.rax, 1 << 40, 1 << 41),
    ),
    Snippet(
        "pause",
        "PAUSE in a loop exits each time when it is trapped.",
        "mov ecx, 2\n1: pause\ndec ecx\njnz 1b\nhlt",
        controls=trapping(pb.TRAPPED_INSTRUCTION_PAUSE),
        exits=(ExitReason.PAUSE, ExitReason.PAUSE, HLT),
        registers={"rcx": 0},
    ),
    Snippet(
        "pause_goes_on",
        "PAUSE in a loop that is not trapped does nothing.",
        "mov ecx, 50\n1: pause\ndec ecx\njnz 1b\nhlt",
        controls=trapping(),
        registers={"rcx": 0},
    ),
    Snippet(
        "flush_caches",
        "WBINVD that is not trapped does nothing.",
        "wbinvd\nmov ebx, 1\nhlt",
        controls=trapping(),
        registers={"rbx": 1},
    ),
    Snippet(
        "wbinvd_exits",
        "WBINVD that is trapped exits behind itself.",
        "wbinvd\nmov ebx, 1\nhlt",
        controls=trapping(pb.TRAPPED_INSTRUCTION_WBINVD),
        exits=(ExitReason.WBINVD, HLT),
        registers={"rbx": 1},
    ),
    Snippet(
        "invlpg_exits",
        "INVLPG that is trapped exits with its address.",
        "mov rdi, KDATA\ninvlpg [rdi+0x20]\nhlt",
        controls=trapping(pb.TRAPPED_INSTRUCTION_INVLPG),
        exits=(ExitReason.INVLPG, HLT),
        check=exited(address=KDATA + 0x20),
    ),
    Snippet(
        "control_register_exits",
        "MOV CR3 that the controls name exits behind itself with qualification, and has not been done.",
        "mov rax, cr3\nmov rbx, rax\nor rax, 8\nmov cr3, rax\nmov rcx, cr3\nhlt",
        controls=trapping(control_registers=pb.ControlRegisterControls(cr3_writes=True)),
        exits=(ExitReason.CR_ACCESS, HLT),
        check=both(exited(qualification=3), lambda seen: equal(seen.machine.page.rcx, seen.machine.page.rbx)),
    ),
    Snippet(
        "monitor_is_not_there",
        "MWAIT that is not trapped is #UD.",
        """
    fault:
        mwait
        hlt
        """,
        controls=trapping(),
        faults=((6, 0, "fault", None),),
    ),
    Snippet(
        "descriptor_tables",
        "SGDT and SIDT store limit and base; LGDT and LIDT load them.",
        """
        mov rdi, KDATA
        sgdt [rdi]
        sidt [rdi+16]
        mov rax, [rdi+2]
        mov rbx, [rdi+18]
        movzx ecx, word ptr [rdi]
        mov word ptr [rdi], 0x2f
        lgdt [rdi]
        lidt [rdi+16]
        hlt
        """,
        registers={"rax": GDT, "rbx": IDT, "rcx": 0x3F, "gdtr_limit": 0x2F, "gdtr_base": GDT, "idtr_limit": 0xFFF},
    ),
    Snippet(
        "task_register",
        "STR stores the selector; LTR loads a TSS, marks it busy, and refuses a busy one with its selector.",
        """
        str eax
        mov rdi, GDT
        and byte ptr [rdi+0x35], 0xfd
        mov ebx, 0x30
        ltr bx
        movzx ecx, byte ptr [rdi+0x35]
    fault:
        ltr bx
        hlt
        """,
        registers={"rax": 0x30, "rcx": 0x8B},
        faults=((13, 0x30, "fault", None),),
        needs=("error-codes",),
        check=lambda seen: equal(seen.machine.page.segment("tr"), Segment(0x30, TSS, 0x67, 0x8B)),
    ),
    Snippet(
        "segment_queries",
        "LAR, LSL, VERR and VERW read descriptors and say by ZF whether they may be used.",
        """
        mov eax, 0x10
        lar ebx, eax
        and ebx, 0xf0ff00       # the rest is undefined
        lsl ecx, eax
        mov eax, 0x08
        verw ax
        setz dl
        verr ax
        hlt
        """,
        start={"rdx": 0},
        registers={"rbx": 0xC0_9300, "rcx": 0xFFFF_FFFF, "rdx": 0},
        set=ZF,
    ),
    Snippet(
        "control_registers",
        "CR0, CR3, CR4 and CR8 are read as they are; CLTS clears TS; SMSW reads the low half.",
        """
        mov rax, cr0
        or rax, 8
        mov cr0, rax
        clts
        mov rbx, cr0
        mov rcx, cr4
        mov eax, 5
        mov cr8, rax
        mov rdx, cr8
        smsw esi
        hlt
        """,
        registers={"rbx": 0x8001_0033, "rcx": 0x620, "rdx": 5, "rsi": 0x8001_0033, "cr8": 5},
    ),
    Snippet(
        "debug_registers",
        "DR0 to DR3, DR6 and DR7 keep what is written, with their fixed bits.",
        """
        mov rax, KDATA
        mov dr0, rax
        mov rbx, dr0
        mov ecx, 0x400
        mov dr7, rcx
        mov rcx, dr7
        mov rdx, dr6
        hlt
        """,
        registers={"rbx": KDATA, "rcx": 0x400, "rdx": 0xFFFF_0FF0, "dr0": KDATA},
    ),
    Snippet(
        "debug_registers_exit",
        "MOV to a debug register exits behind itself when the controls say so.",
        "mov eax, 0x400\nmov dr7, rax\nhlt",
        controls=trapping(debug_registers=True),
        exits=(ExitReason.DR_ACCESS, HLT),
        check=exited(qualification=7),
    ),
    Snippet(
        "random_exits",
        "RDRAND that is trapped exits behind itself and names the register to fill.",
        "rdrand rcx\nhlt",
        controls=trapping(pb.TRAPPED_INSTRUCTION_RDRAND),
        exits=(ExitReason.RANDOM, HLT),
        answer=give(rcx=0x1234),
        registers={"rcx": 0x1234},
        check=exited(access_register=1, access_size=8),
    ),
)


def _clock(machine: Any) -> None:
    """The counter of the page counts from 2^40."""
    machine.page.tsc, machine.page.tsc_aux, machine.page.tsc_answered = 1 << 40, 5, 1


def _between(found: int, low: int, high: int) -> None:
    assert low <= found < high, hex(found)
