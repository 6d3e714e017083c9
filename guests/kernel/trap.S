/*
 * Where the IDT's gates lead: one stub for each vector that is used. A stub makes the stack look alike whether the
 * processor pushed an error code or not, saves the registers (struct trap in trap.h), and calls trap_handle.
 */

#define WITHOUT_CODE(vector) .globl trap_##vector; trap_##vector: push $0; push $vector; jmp trap_common
#define WITH_CODE(vector) .globl trap_##vector; trap_##vector: push $vector; jmp trap_common

    .text
WITHOUT_CODE(0)
WITHOUT_CODE(1)
WITHOUT_CODE(2)
WITHOUT_CODE(3)
WITHOUT_CODE(4)
WITHOUT_CODE(5)
WITHOUT_CODE(6)
WITHOUT_CODE(7)
WITH_CODE(8)
WITHOUT_CODE(9)
WITH_CODE(10)
WITH_CODE(11)
WITH_CODE(12)
WITH_CODE(13)
WITH_CODE(14)
WITHOUT_CODE(16)
WITH_CODE(17)
WITHOUT_CODE(18)
WITHOUT_CODE(19)
WITHOUT_CODE(36)
WITHOUT_CODE(128)

trap_common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    call trap_handle
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp                       /* vector and error code */
    iretq
