/* Loading the descriptor tables, and the way to ring 3 and back. cpu.h says what each does. */

    .text
/* void load_tables(const void *gdt, const void *idt, long task_selector): each operand of lgdt and lidt is 10 bytes. */
    .globl load_tables
load_tables:
    lgdt (%rdi)
    lidt (%rsi)
    mov %dx, %ax
    ltr %ax
    mov $0x10, %eax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    pop %rax
    push $0x08
    push %rax
    .byte 0x48, 0xcb                    /* lretq: loads CS from our own GDT */

/*
 * void enter_user(long rip, long rsp): goes to ring 3 with interrupts on. Returns to its caller when the program ends,
 * that is, when leave_user is called by the system call handler.
 */
    .globl enter_user
enter_user:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, kernel_resume(%rip)
    push $0x23                          /* SS: user data, ring 3 */
    push %rsi
    push $0x202                         /* RFLAGS: interrupts on */
    push $0x2b                          /* CS: user code, ring 3 */
    push %rdi
    xor %eax, %eax
    xor %ebx, %ebx
    xor %ecx, %ecx
    xor %edx, %edx
    xor %esi, %esi
    xor %edi, %edi
    xor %ebp, %ebp
    iretq

    .globl leave_user
leave_user:
    mov kernel_resume(%rip), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    .data
    .balign 8
kernel_resume:
    .quad 0
