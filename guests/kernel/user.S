/*
 * The user program: it runs at ring 3, wherever its page is mapped, and asks the kernel by int 0x80.
 *
 *     rax 1   write(rdi: text, rsi: bytes)          rax 2   tell(rdi: number), printed in hexadecimal
 *     rax 3   exit(rdi: code)
 *
 * It writes to eight pages of its heap, which exist only once it touches them, reads them back, and tells their sum.
 */

    .text
    .balign 16
    .globl user_start, user_end
user_start:
    jmp begin
hello:
    .ascii "user: hello from ring 3; the sum of eight fresh pages is "
hello_end:
begin:
    mov $1, %eax
    lea hello(%rip), %rdi
    mov $hello_end - hello, %esi
    int $0x80

    mov $8, %ecx
    lea -0x8000(%rsp), %rbx             /* eight pages below the stack: not mapped yet */
fill:
    mov %rcx, (%rbx)
    add $0x1000, %rbx
    dec %ecx
    jnz fill

    mov $8, %ecx
    xor %edi, %edi
    lea -0x8000(%rsp), %rbx
add_up:
    add (%rbx), %rdi
    add $0x1000, %rbx
    dec %ecx
    jnz add_up

    mov $2, %eax                        /* 1 + 2 + … + 8 = 0x24 */
    int $0x80
    mov $3, %eax
    xor %edi, %edi
    int $0x80
never:
    jmp never
user_end:
