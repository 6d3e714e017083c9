"""Machine code of tests outside 64-bit mode, with its source (Intel syntax); assembled once, committed as bytes.

Code lies at 0x10000 unless its description says otherwise.
"""

from __future__ import annotations

CODE: dict[str, bytes] = {
    # sum32: sums 1 to 1000 with instructions that 64-bit mode does not have, then HLT
    #       xor eax, eax
    #       mov ecx, 1000
    #   1: add eax, ecx
    #       dec ecx
    #       jnz 1b
    #       push eax
    #       pop ebx
    #       inc edx
    #       pusha
    #       popa
    #       hlt
    "sum32": bytes.fromhex("31c0b9e803000001c84975fb505b426061f4"),
    # far32: goes to code at base 0x20000 (selector 0x20), and reads through DS of base 0x30000 (0x28)
    #       mov eax, 0x28
    #       mov ds, ax
    #       .byte 0xea
    #       .long 0x100
    #       .word 0x20
    "far32": bytes.fromhex("b8280000008ed8ea000100002000"),
    # behind_far32: reads [0x10] of DS, calls the next instruction, HLT
    #       mov eax, [0x10]
    #       call 1f
    #   1: pop ebx
    #       hlt
    "behind_far32": bytes.fromhex("a110000000e8000000005bf4"),
    # load32: reads from ECX
    #       mov eax, [ecx]
    #       hlt
    "load32": bytes.fromhex("8b01f4"),
    # user32: IRET to ring 3 at EBX with stack ECX
    #       push 0x2b
    #       push ecx
    #       push 0x202
    #       push 0x23
    #       push ebx
    #       iret
    "user32": bytes.fromhex("6a2b5168020200006a2353cf"),
    # int80: INT 0x80, then an endless loop
    #       int 0x80
    #   1: jmp 1b
    "int80": bytes.fromhex("cd80ebfe"),
    # count_int80: INT 0x80 three times, INC EBX between, then INT 0x81
    #       int 0x80
    #       inc ebx
    #       int 0x80
    #       inc ebx
    #       int 0x80
    #       int 0x81
    "count_int80": bytes.fromhex("cd8043cd8043cd80cd81"),
    # iret32: counts in [0x8000], IRET
    #       inc dword ptr [0x8000]
    #       iret
    "iret32": bytes.fromhex("ff0500800000cf"),
    # hlt: HLT
    #       hlt
    "hlt": bytes.fromhex("f4"),
    # error32: takes the error code into EAX, HLT
    #       pop eax
    #       hlt
    "error32": bytes.fromhex("58f4"),
    # boot: sets up four levels of paging at 0x40000, goes to long mode and 64-bit code as a kernel does
    #       mov dword ptr [0x40000], 0x41003
    #       mov dword ptr [0x41000], 0x42003
    #       mov dword ptr [0x42000], 0x83
    #       mov eax, cr4
    #       or eax, 0x20
    #       mov cr4, eax
    #       mov eax, 0x40000
    #       mov cr3, eax
    #       mov ecx, 0xc0000080
    #       rdmsr
    #       or eax, 0x100
    #       wrmsr
    #       mov eax, cr0
    #       or eax, 0x80000000
    #       mov cr0, eax
    #       .byte 0xea
    #       .long 1f
    #       .word 0x18
    #       .code64
    #   1: movabs rbx, 0x1122334455667788
    #       mov r9, rbx
    #       mov ecx, 0xc0000080
    #       rdmsr
    #       hlt
    "boot": bytes.fromhex(
        "c7050000040003100400c7050010040003200400c70500200400830000000f20e083c8200f22e0b8000004000f22d8b9"
        "800000c00f320d000100000f300f20c00d000000800f22c0ea4f000100180048bb88776655443322114989d9b9800000"
        "c00f32f4"
    ),
    # boot16: goes from real mode to protected mode by itself, then HLT
    #       mov eax, cr0
    #       or al, 1
    #       mov cr0, eax
    #       .byte 0x66, 0xea
    #       .long 1f
    #       .word 0x08
    #       .code32
    #   1: mov ax, 0x10
    #       mov ds, ax
    #       mov ss, ax
    #       mov dword ptr [0x8000], 0x12345678
    #       push 0x11
    #       hlt
    "boot16": bytes.fromhex("0f20c00c010f22c066ea10000100080066b810008ed88ed0c70500800000785634126a11f4"),
    # real_int: INT 0x21, then HLT in real mode
    #       mov ax, 0x1234
    #       int 0x21
    #       hlt
    "real_int": bytes.fromhex("b83412cd21f4"),
    # real_iret: takes AX into BX, IRET
    #       mov bx, ax
    #       iret
    "real_iret": bytes.fromhex("89c3cf"),
    # sysenter32: SYSENTER at ring 3; behind it INT 0x81
    #       mov edx, offset 1f
    #       mov ecx, esp
    #       sysenter
    #   1: int 0x81
    "sysenter32": bytes.fromhex("ba0910010089e10f34cd81"),
    # sysexit32: INC EBX, SYSEXIT
    #       inc ebx
    #       sysexit
    "sysexit32": bytes.fromhex("430f35"),
    # reload: MOV CR3 from EDX, reads [ECX], HLT
    #       mov cr3, edx
    #       mov eax, [ecx]
    #       hlt
    "reload": bytes.fromhex("0f22da8b01f4"),
    # load_twice: reads [ECX], INVLPG, stores EBX in [EDI], reads again
    #       mov eax, [ecx]
    #       mov [edi], ebx
    #       invlpg [ecx]
    #       mov edx, [ecx]
    #       hlt
    "load_twice": bytes.fromhex("8b01891f0f01398b11f4"),
    # device32: writes EAX to [ECX], reads [ECX+4] into EBX, STOSD
    #       mov [ecx], eax
    #       movzx ebx, word ptr [ecx+4]
    #       stosd
    #       hlt
    "device32": bytes.fromhex("89010fb75904abf4"),
    # ports32: OUT, IN, OUTSB twice, HLT
    #       out 0x80, al
    #       in al, 0x60
    #       mov ecx, 2
    #       mov dx, 0x3f8
    #       rep outsb
    #       hlt
    "ports32": bytes.fromhex("e680e460b90200000066baf803f36ef4"),
    # compat: pushes and pops 32 bits, counts to 100, INT 0x80
    #       mov ecx, 100
    #   1: dec ecx
    #       jnz 1b
    #       push 0x77
    #       pop ebx
    #       int 0x80
    "compat": bytes.fromhex("b9640000004975fd6a775bcd80"),
    # compat_kernel: IRETQ to 32-bit code of ring 3 at 0x400000, with stack 0x611000
    #       push 0x23
    #       push 0x611000
    #       push 0x202
    #       push 0x1b
    #       push 0x400000
    #       iretq
    "compat_kernel": bytes.fromhex("6a23680010610068020200006a1b680000400048cf"),
    # undefined_syscall: SYSCALL
    #       syscall
    "undefined_syscall": bytes.fromhex("0f05"),
    # spin: an endless loop of two instructions
    #   1: inc eax
    #       jmp 1b
    "spin": bytes.fromhex("40ebfd"),
    # stack16: pushes and pops words, ENTER, LEAVE, segments
    #       push ax
    #       pop bx
    #       enter 8, 0
    #       leave
    #       push ds
    #       pop es
    #       hlt
    "stack16": bytes.fromhex("6650665bc8080000c91e07f4"),
}
