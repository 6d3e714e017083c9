/*
 * The first instructions of every vCPU.
 *
 * Boot protocol (services/hypervisor/README.md): 64-bit long mode, ring 0, interrupts off, guest RAM mapped one to one,
 *
 *     rdi   guest physical address of the boot information (boot.h)
 *     rsi   number of this vCPU
 *     rsp   top of a 4 KiB stack of this vCPU's own
 *
 * The kernel is linked to run where it is loaded, at 1 MiB.
 */

    .globl _start
_start:
    cld
    test %esi, %esi
    jnz secondary
    lea kernel_stack_top(%rip), %rsp
    call kernel_main
    jmp stop
secondary:
    mov %esi, %edi
    call secondary_main
stop:
    cli
    hlt
    jmp stop

    .bss
    .balign 16
    .skip 16384
    .globl kernel_stack_top
kernel_stack_top:
