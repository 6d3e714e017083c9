/* Where a program begins: the kernel leaves argc, argv and envp on the stack. Source: System V ABI, AMD64, 3.4.1. */
    .globl _start
_start:
    xor %rbp, %rbp              /* the outermost frame */
    mov (%rsp), %rdi            /* argc */
    lea 8(%rsp), %rsi           /* argv */
    and $-16, %rsp
    call main
    mov %rax, %rdi
    mov $231, %rax              /* exit_group */
    syscall
    hlt
