"""Machine code that the hardware tests run, with its source (Intel syntax); assembled once, committed as bytes.

Code lies at 0x400000 unless its description says otherwise; data at 0x600000, a stack below 0x611000.
"""

from __future__ import annotations

CODE: dict[str, bytes] = {
    # count: sums 1 to 1000, then SYSCALL
    #       xor eax, eax
    #       mov ecx, 1000
    #   1:  add rax, rcx
    #       dec ecx
    #       jnz 1b
    #       syscall
    "count": bytes.fromhex("31c0b9e80300004801c8ffc975f90f05"),
    # arithmetic: integer, x87 and SSE results in registers, then SYSCALL
    #       mov rax, 6
    #       imul rax, rax, 7
    #       mov rbx, -1
    #       shr rbx, 32
    #       cvtsi2sd xmm0, rax
    #       sqrtsd xmm1, xmm0
    #       mulsd xmm1, xmm1
    #       cvtsd2si r9, xmm1
    #       mov rdx, 0x4008000000000000
    #       movq xmm2, rdx
    #       addsd xmm2, xmm2
    #       movq rdx, xmm2
    #       popcnt rsi, rbx
    #       fld1
    #       fadd st(0), st(0)
    #       syscall
    "arithmetic": bytes.fromhex(
        "48c7c006000000486bc00748c7c3ffffffff48c1eb20f2480f2ac0f20f51c8f20f59c9f24c0f2dc948ba000000000000"
        "084066480f6ed2f20f58d266480f7ed2f3480fb8f3d9e8d8c00f05"
    ),
    # syscall_loop: SYSCALL for ever
    #   1:  syscall
    #       jmp 1b
    "syscall_loop": bytes.fromhex("0f05ebfc"),
    # spin: runs for ever, five instructions a turn
    #   1:  add rax, 1
    #       xor rbx, rax
    #       lea rdx, [rax+rbx]
    #       test rdx, rdx
    #       jmp 1b
    "spin": bytes.fromhex("4883c0014831c3488d14184885d2ebf0"),
    # store_load: stores RBX at 0x600010 and loads it to RCX, then SYSCALL
    #       mov rax, 0x600000
    #       mov [rax+0x10], rbx
    #       mov rcx, [rax+0x10]
    #       syscall
    "store_load": bytes.fromhex("48c7c00000600048895810488b48100f05"),
    # store: stores RBX at [RDI] behind two instructions, then SYSCALL
    #       nop
    #       nop
    #       mov [rdi], rbx
    #       nop
    #       syscall
    "store": bytes.fromhex("909048891f900f05"),
    # load: loads RBX from [RDI] behind one instruction, then SYSCALL
    #       nop
    #       mov rbx, [rdi]
    #       syscall
    "load": bytes.fromhex("90488b1f0f05"),
    # jump: jumps to RDI
    #       jmp rdi
    "jump": bytes.fromhex("ffe7"),
    # hlt: NOP, HLT, then SYSCALL
    #       nop
    #       hlt
    #       syscall
    "hlt": bytes.fromhex("90f40f05"),
    # out_in: OUT of each size, then IN of each size, then SYSCALL
    #       mov eax, 0x11223344
    #       mov edx, 0x3f8
    #       out dx, al
    #       out dx, ax
    #       out dx, eax
    #       out 0x80, al
    #       in al, dx
    #       in ax, dx
    #       in eax, dx
    #       in al, 0x60
    #       syscall
    "out_in": bytes.fromhex("b844332211baf8030000ee66efefe680ec66edede4600f05"),
    # outs: writes three bytes at 0x600000 to port 0xe9, then SYSCALL
    #       mov rsi, 0x600000
    #       mov ecx, 3
    #       mov edx, 0xe9
    #       rep outsb
    #       syscall
    "outs": bytes.fromhex("48c7c600006000b903000000bae9000000f36e0f05"),
    # ins: reads two words from port 0x1f0 to 0x600000, then SYSCALL
    #       mov rdi, 0x600000
    #       mov ecx, 2
    #       mov edx, 0x1f0
    #       rep insw
    #       syscall
    "ins": bytes.fromhex("48c7c700006000b902000000baf001000066f36d0f05"),
    # cpuid: CPUID leaf 0, then leaf 0x40000000, then SYSCALL
    #       xor eax, eax
    #       xor ecx, ecx
    #       cpuid
    #       mov r8, rbx
    #       mov eax, 0x40000000
    #       cpuid
    #       syscall
    "cpuid": bytes.fromhex("31c031c90fa24989d8b8000000400fa20f05"),
    # rdtsc: NOP, RDTSC, RDTSCP, then SYSCALL
    #       nop
    #       rdtsc
    #       rdtscp
    #       syscall
    "rdtsc": bytes.fromhex("900f310f01f90f05"),
    # random: RDRAND RCX, RDSEED R9D, then SYSCALL
    #       rdrand rcx
    #       rdseed r9d
    #       syscall
    "random": bytes.fromhex("480fc7f1410fc7f90f05"),
    # hypercall: VMCALL, VMMCALL, then SYSCALL
    #       vmcall
    #       vmmcall
    #       syscall
    "hypercall": bytes.fromhex("0f01c10f01d90f05"),
    # msr: RDMSR 0x10, WRMSR 0x11 with RDX:RAX, then HLT
    #       mov ecx, 0x10
    #       rdmsr
    #       mov ecx, 0x11
    #       wrmsr
    #       hlt
    "msr": bytes.fromhex("b9100000000f32b9110000000f30f4"),
    # msr_kept: writes and reads STAR and GS base, then HLT
    #       mov ecx, 0xc0000081
    #       mov eax, 0x1234
    #       mov edx, 0x5678
    #       wrmsr
    #       xor eax, eax
    #       xor edx, edx
    #       rdmsr
    #       mov rbx, rdx
    #       shl rbx, 32
    #       or rbx, rax
    #       mov ecx, 0xc0000101
    #       mov eax, 0x600000
    #       xor edx, edx
    #       wrmsr
    #       mov rsi, gs:[0x10]
    #       hlt
    "msr_kept": bytes.fromhex(
        "b9810000c0b834120000ba785600000f3031c031d20f324889d348c1e3204809c3b9010100c0b80000600031d20f3065"
        "488b342510000000f4"
    ),
    # undefined: two instructions, then UD2
    #       nop
    #       nop
    #       ud2
    "undefined": bytes.fromhex("90900f0b"),
    # divide: divides by zero as third instruction
    #       xor ecx, ecx
    #       nop
    #       div ecx
    "divide": bytes.fromhex("31c990f7f1"),
    # breakpoint: INT3, then SYSCALL
    #       int3
    #       syscall
    "breakpoint": bytes.fromhex("cc0f05"),
    # int80: INT 0x80, then SYSCALL
    #       int 0x80
    #       syscall
    "int80": bytes.fromhex("cd800f05"),
    # int14: INT 14 from ring 3
    #       nop
    #       int 14
    "int14": bytes.fromhex("90cd0e"),
    # privileged: CLI at ring 3
    #       cli
    "privileged": bytes.fromhex("fa"),
    # noncanonical: loads from a non-canonical address
    #       mov rax, 0x8000000000000000
    #       mov rbx, [rax]
    "noncanonical": bytes.fromhex("48b80000000000000080488b18"),
    # segment: loads a selector outside any table into DS
    #       mov eax, 0x1234
    #       mov ds, ax
    "segment": bytes.fromhex("b8341200008ed8"),
    # straddle: stores 8 bytes across the pages 0x600000 and 0x601000
    #       mov rax, 0x600ffc
    #       mov rbx, 0x1122334455667788
    #       mov [rax], rbx
    #       syscall
    "straddle": bytes.fromhex("48c7c0fc0f600048bb88776655443322114889180f05"),
    # copy: copies 8192 bytes from 0x600000 to 0x610000 by REP MOVSB
    #       mov rsi, 0x600000
    #       mov rdi, 0x610000
    #       mov ecx, 8192
    #       rep movsb
    #       syscall
    "copy": bytes.fromhex("48c7c60000600048c7c700006100b900200000f3a40f05"),
    # patch_same_page: overwrites the immediate of its own next instruction
    #       lea rdi, [rip+1f+1]
    #       mov dword ptr [rdi], 0x2222
    #   1:  mov eax, 0x1111
    #       syscall
    "patch_same_page": bytes.fromhex("488d3d07000000c70722220000b8111100000f05"),
    # patch_loop: writes a function of its data page 1000 times and calls it each time; RBX sums what it returns
    #       mov rdi, 0x600000
    #       mov rsp, 0x611000
    #       xor ebx, ebx
    #       mov ecx, 1000
    #   1:  mov byte ptr [rdi], 0xb8
    #       mov [rdi+1], ecx
    #       mov byte ptr [rdi+5], 0xc3
    #       call rdi
    #       add rbx, rax
    #       dec ecx
    #       jnz 1b
    #       syscall
    "patch_loop": bytes.fromhex("48c7c70000600048c7c40010610031dbb9e8030000c607b8894f01c64705c3ffd74801c3ffc975ed0f05"),
    # return_7: MOV EAX, 7, then SYSCALL
    #       mov eax, 7
    #       syscall
    "return_7": bytes.fromhex("b8070000000f05"),
    # return_9: MOV EAX, 9, then SYSCALL
    #       mov eax, 9
    #       syscall
    "return_9": bytes.fromhex("b8090000000f05"),
    # fs_base: loads from FS:[0x10], then SYSCALL
    #       mov rax, fs:[0x10]
    #       syscall
    "fs_base": bytes.fromhex("64488b0425100000000f05"),
    # long_block: 60 instructions without a branch, then a jump back
    #   1:
    #       .rept 60
    #       add rax, 1
    #       .endr
    #       jmp 1b
    "long_block": bytes.fromhex(
        "4883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c001"
        "4883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c001"
        "4883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c001"
        "4883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c001"
        "4883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c0014883c001"
        "e90bffffff"
    ),
    # mixed_loop: 500 turns with stores, loads, calls and REP; then SYSCALL
    #       mov rdi, 0x600000
    #       mov rsp, 0x611000
    #       mov ecx, 500
    #       cld
    #   1:  call 2f
    #       mov [rdi], rcx
    #       mov rax, [rdi]
    #       add rbx, rax
    #       push rcx
    #       mov ecx, 5
    #       push rdi
    #       xor eax, eax
    #       rep stosb
    #       pop rdi
    #       pop rcx
    #       add rdi, 24
    #       dec ecx
    #       jnz 1b
    #       syscall
    #   2:  add rdx, 3
    #       ret
    "mixed_loop": bytes.fromhex(
        "48c7c70000600048c7c400106100b9f4010000fce82000000048890f488b074801c351b9050000005731c0f3aa5f5948"
        "83c718ffc975dd0f054883c203c3"
    ),
    # kernel_enter_user: ring 0: goes to ring 3 at 0x400000 with the stack 0x611000 by IRETQ
    #       push 0x23
    #       push 0x611000
    #       push 0x202
    #       push 0x2b
    #       push 0x400000
    #       iretq
    "kernel_enter_user": bytes.fromhex("6a23680010610068020200006a2b680000400048cf"),
    # handler_count: a handler: counts at 0xffff800000010000, keeps RIP, code and CR2 beside it, IRETQ behind a
    # pushed code
    #       push rbx
    #       mov rbx, 0xffff800000010000
    #       inc qword ptr [rbx]
    #       push rax
    #       mov rax, [rsp+16]
    #       mov [rbx+8], rax
    #       mov rax, [rsp+24]
    #       mov [rbx+16], rax
    #       mov rax, cr2
    #       mov [rbx+24], rax
    #       pop rax
    #       pop rbx
    #       add rsp, 8
    #       iretq
    "handler_count": bytes.fromhex(
        "5348bb000001000080ffff48ff0350488b44241048894308488b442418488943100f20d048894318585b4883c40848cf"
    ),
    # handler_hlt: a handler: HLT, then IRETQ
    #       hlt
    #       iretq
    "handler_hlt": bytes.fromhex("f448cf"),
    # handler_tick: a handler: counts at 0xffff800000010020, IRETQ
    #       push rbx
    #       mov rbx, 0xffff800000010020
    #       inc qword ptr [rbx]
    #       pop rbx
    #       iretq
    "handler_tick": bytes.fromhex("5348bb200001000080ffff48ff035b48cf"),
    # kernel_sti: ring 0: 100 turns with IF clear, then STI, then 100 turns, then HLT
    #       cli
    #       mov ecx, 100
    #   1:  dec ecx
    #       jnz 1b
    #       sti
    #       mov ecx, 100
    #   2:  dec ecx
    #       jnz 2b
    #       hlt
    "kernel_sti": bytes.fromhex("fab964000000ffc975fcfbb964000000ffc975fcf4"),
    # kernel_cr3: ring 0: loads RBX from [RDI], MOV CR3 RSI, loads RCX from [RDI], HLT
    #       mov rbx, [rdi]
    #       mov cr3, rsi
    #       mov rcx, [rdi]
    #       hlt
    "kernel_cr3": bytes.fromhex("488b1f0f22de488b0ff4"),
    # kernel_invlpg: ring 0: loads RBX from [RDI], stores RDX into the entry at [RSI], INVLPG [RDI], loads RCX from
    # [RDI], HLT
    #       mov rbx, [rdi]
    #       mov [rsi], rdx
    #       invlpg [rdi]
    #       mov rcx, [rdi]
    #       hlt
    "kernel_invlpg": bytes.fromhex("488b1f4889160f013f488b0ff4"),
    # user_syscall: ring 3: SYSCALL, then INT 0x80
    #       mov edi, 5
    #       syscall
    #       int 0x80
    "user_syscall": bytes.fromhex("bf050000000f05cd80"),
    # kernel_syscall: at LSTAR: doubles RDI, keeps RCX, SYSRETQ
    #       add rdi, rdi
    #       mov rbp, rsp
    #       sysretq
    "kernel_syscall": bytes.fromhex("4801ff4889e5480f07"),
    # user_fault: ring 3: stores RCX at [RDI], then INT 0x80
    #       mov [rdi], rcx
    #       int 0x80
    "user_fault": bytes.fromhex("48890fcd80"),
}
