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

/* Where a signal handler returns to. Source: sigreturn(2). */
    .globl restore_signal
restore_signal:
    mov $15, %rax               /* rt_sigreturn */
    syscall
    hlt
