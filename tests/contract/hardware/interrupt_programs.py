"""Machine code of guests with a local APIC, with its source (Intel syntax); assembled once, committed as bytes.

Conventions as in `programs.py`. Handlers that count or log do so in the kernel's data page.
"""

from __future__ import annotations

CODE: dict[str, bytes] = {
    # x2_wait: ring 0, x2APIC: on, timer entry RBX, divide by 1, count RSI, STI; waits until [RDI] is R8; OUT
    #       mov ecx, 0x80f
    #       mov eax, 0x1ff
    #       xor edx, edx
    #       wrmsr
    #       mov ecx, 0x832
    #       mov eax, ebx
    #       wrmsr
    #       mov ecx, 0x83e
    #       mov eax, 0xb
    #       wrmsr
    #       mov ecx, 0x838
    #       mov eax, esi
    #       wrmsr
    #       sti
    #   1:  cmp [rdi], r8
    #       jb 1b
    #       out 0x80, al
    "x2_wait": bytes.fromhex(
        "b90f080000b8ff01000031d20f30b93208000089d80f30b93e080000b80b0000000f30b93808000089f00f30fb4c390772fbe680"
    ),
    # x2_halt: the same, but waits in HLT
    #       mov ecx, 0x80f
    #       mov eax, 0x1ff
    #       xor edx, edx
    #       wrmsr
    #       mov ecx, 0x832
    #       mov eax, ebx
    #       wrmsr
    #       mov ecx, 0x83e
    #       mov eax, 0xb
    #       wrmsr
    #       mov ecx, 0x838
    #       mov eax, esi
    #       wrmsr
    #       sti
    #   1:  hlt
    #       cmp [rdi], r8
    #       jb 1b
    #       out 0x80, al
    "x2_halt": bytes.fromhex(
        "b90f080000b8ff01000031d20f30b93208000089d80f30b93e080000b80b0000000f30b93808000089f00f30fbf44c390772fae680"
    ),
    # x2_ipi: ring 0, x2APIC: on, ICR RSI:RBX, OUT; then waits until [RDI] is R8; OUT
    #       mov ecx, 0x80f
    #       mov eax, 0x1ff
    #       xor edx, edx
    #       wrmsr
    #       sti
    #       mov ecx, 0x830
    #       mov eax, ebx
    #       mov edx, esi
    #       wrmsr
    #       out 0x80, al
    #   1:  cmp [rdi], r8
    #       jb 1b
    #       out 0x80, al
    "x2_ipi": bytes.fromhex("b90f080000b8ff01000031d20f30fbb93008000089d889f20f30e6804c390772fbe680"),
    # x_wait: ring 0, xAPIC at [R15]: on, timer entry RBX, divide by 1, count RSI, STI; waits until [RDI] is R8; count
    # to EDX; OUT
    #       mov dword ptr [r15+0xf0], 0x1ff
    #       mov dword ptr [r15+0x320], ebx
    #       mov dword ptr [r15+0x3e0], 0xb
    #       mov dword ptr [r15+0x380], esi
    #       sti
    #   1:  cmp [rdi], r8
    #       jb 1b
    #       mov edx, dword ptr [r15+0x390]
    #       out 0x80, al
    "x_wait": bytes.fromhex(
        "41c787f0000000ff01000041899f2003000041c787e00300000b0000004189b780030000fb4c390772fb418b9790030000e680"
    ),
    # x_ipi: ring 0, xAPIC at [R15]: on, ICR RSI:RBX by stores, STI, OUT; waits until [RDI] is R8; OUT
    #       mov dword ptr [r15+0xf0], 0x1ff
    #       mov dword ptr [r15+0x310], esi
    #       mov dword ptr [r15+0x300], ebx
    #       sti
    #       out 0x80, al
    #   1:  cmp [rdi], r8
    #       jb 1b
    #       out 0x80, al
    "x_ipi": bytes.fromhex("41c787f0000000ff0100004189b71003000041899f00030000fbe6804c390772fbe680"),
    # x_odd: ring 0: an 8-byte load from [R15], which no APIC register is
    #       mov rax, [r15]
    #       hlt
    "x_odd": bytes.fromhex("498b07f4"),
    # x2_msr: ring 0: WRMSR ECX = RBX, EAX = RSI, EDX = R8; RDMSR of ECX; OUT
    #       mov ecx, ebx
    #       mov eax, esi
    #       mov edx, r8d
    #       wrmsr
    #       rdmsr
    #       out 0x80, al
    "x2_msr": bytes.fromhex("89d989f04489c20f300f32e680"),
    # x2_self: ring 0, x2APIC: on, self IPIs of the vectors in BL, SIL and R8B, with IF clear; STI; three NOPs; OUT
    #       mov ecx, 0x80f
    #       mov eax, 0x1ff
    #       xor edx, edx
    #       wrmsr
    #       mov ecx, 0x83f
    #       mov eax, ebx
    #       wrmsr
    #       mov eax, esi
    #       wrmsr
    #       mov eax, r8d
    #       wrmsr
    #       sti
    #       nop
    #       jmp 1f
    #   1:  jmp 2f
    #   2:  jmp 3f
    #   3:  out 0x80, al
    "x2_self": bytes.fromhex("b90f080000b8ff01000031d20f30b93f08000089d80f3089f00f304489c00f30fb90eb00eb00eb00e680"),
    # x2_task: ring 0, x2APIC: on, TPR = BL, STI, spins RSI turns, TPR = 0, spins RSI turns; OUT
    #       mov ecx, 0x80f
    #       mov eax, 0x1ff
    #       xor edx, edx
    #       wrmsr
    #       mov ecx, 0x808
    #       mov eax, ebx
    #       wrmsr
    #       sti
    #       mov r9, rsi
    #   1:  dec r9
    #       jnz 1b
    #       xor eax, eax
    #       wrmsr
    #   2:  dec rsi
    #       jnz 2b
    #       out 0x80, al
    "x2_task": bytes.fromhex("b90f080000b8ff01000031d20f30b90808000089d80f30fb4989f149ffc975fb31c00f3048ffce75fbe680"),
    # handler_count_x2: a handler: counts at 0xffff800000010020, EOI by MSR, IRETQ
    #       push rax
    #       push rcx
    #       push rdx
    #       movabs rax, 0xffff800000010020
    #       inc qword ptr [rax]
    #       mov ecx, 0x80b
    #       xor eax, eax
    #       xor edx, edx
    #       wrmsr
    #       pop rdx
    #       pop rcx
    #       pop rax
    #       iretq
    "handler_count_x2": bytes.fromhex("50515248b8200001000080ffff48ff00b90b08000031c031d20f305a595848cf"),
    # handler_count_x: a handler: counts at 0xffff800000010020, EOI at [R15], IRETQ
    #       push rax
    #       movabs rax, 0xffff800000010020
    #       inc qword ptr [rax]
    #       mov dword ptr [r15+0xb0], 0
    #       pop rax
    #       iretq
    "handler_count_x": bytes.fromhex("5048b8200001000080ffff48ff0041c787b0000000000000005848cf"),
    # handler_log: a handler: appends 0x11223344 to the words behind 0xffff800000010108, EOI by MSR, IRETQ; the test
    # puts a vector there
    #       push rax
    #       push rbx
    #       push rcx
    #       push rdx
    #       movabs rbx, 0xffff800000010100
    #       mov rax, [rbx]
    #       inc qword ptr [rbx]
    #       mov dword ptr [rbx+rax*4+8], 0x11223344
    #       mov ecx, 0x80b
    #       xor eax, eax
    #       xor edx, edx
    #       wrmsr
    #       pop rdx
    #       pop rcx
    #       pop rbx
    #       pop rax
    #       iretq
    "handler_log": bytes.fromhex(
        "5053515248bb000101000080ffff488b0348ff03c744830844332211b90b08000031c031d20f305a595b5848cf"
    ),
    # handler_log_open: the same, but allows interrupts, and appends 0x55667788 before it ends
    #       push rax
    #       push rbx
    #       push rcx
    #       push rdx
    #       movabs rbx, 0xffff800000010100
    #       mov rax, [rbx]
    #       inc qword ptr [rbx]
    #       mov dword ptr [rbx+rax*4+8], 0x11223344
    #       sti
    #       nop
    #       jmp 1f
    #   1:  jmp 2f
    #   2:  cli
    #       mov rax, [rbx]
    #       inc qword ptr [rbx]
    #       mov dword ptr [rbx+rax*4+8], 0x55667788
    #       mov ecx, 0x80b
    #       xor eax, eax
    #       xor edx, edx
    #       wrmsr
    #       pop rdx
    #       pop rcx
    #       pop rbx
    #       pop rax
    #       iretq
    "handler_log_open": bytes.fromhex(
        "5053515248bb000101000080ffff488b0348ff03c744830844332211fb90eb00eb00fa488b0348ff03c7448308887766"
        "55b90b08000031c031d20f305a595b5848cf"
    ),
    # handler_nmi: a handler: counts at 0xffff800000010040, 1000 turns, IRETQ
    #       push rax
    #       push rcx
    #       movabs rax, 0xffff800000010040
    #       inc qword ptr [rax]
    #       mov ecx, 1000
    #   1:  dec ecx
    #       jnz 1b
    #       pop rcx
    #       pop rax
    #       iretq
    "handler_nmi": bytes.fromhex("505148b8400001000080ffff48ff00b9e8030000ffc975fc595848cf"),
    # kernel_spin: ring 0: STI, then spins until [RDI] is R8; OUT
    #       sti
    #   1:  cmp [rdi], r8
    #       jb 1b
    #       out 0x80, al
    "kernel_spin": bytes.fromhex("fb4c390772fbe680"),
    # kernel_closed: ring 0: CLI, then spins until [RDI] is R8; OUT
    #       cli
    #   1:  cmp [rdi], r8
    #       jb 1b
    #       out 0x80, al
    "kernel_closed": bytes.fromhex("fa4c390772fbe680"),
    # kernel_halt: ring 0: STI, HLT until [RDI] is R8; OUT
    #       sti
    #   1:  hlt
    #       cmp [rdi], r8
    #       jb 1b
    #       out 0x80, al
    "kernel_halt": bytes.fromhex("fbf44c390772fae680"),
    # kernel_halt_closed: ring 0: CLI, HLT until [RDI] is R8; OUT
    #       cli
    #   1:  hlt
    #       cmp [rdi], r8
    #       jb 1b
    #       out 0x80, al
    "kernel_halt_closed": bytes.fromhex("faf44c390772fae680"),
    # kernel_shadow: ring 0: CLI, STI, OUT of AL at once (in the shadow), two NOPs, OUT; with IF set nothing else
    #       cli
    #       sti
    #       out 0x80, al
    #       nop
    #       jmp 1f
    #   1:  out 0x81, al
    "kernel_shadow": bytes.fromhex("fafbe68090eb00e681"),
    # kernel_to_user: ring 0: IRETQ to 0x400000 at ring 3 with IF set
    #       push 0x23
    #       push 0x611000
    #       push 0x202
    #       push 0x2b
    #       push 0x400000
    #       iretq
    "kernel_to_user": bytes.fromhex("6a23680010610068020200006a2b680000400048cf"),
    # user_spin: ring 3: spins until [RDI] is R8; INT 0x80
    #   1:  cmp [rdi], r8
    #       jb 1b
    #       int 0x80
    "user_spin": bytes.fromhex("4c390772fbcd80"),
}
