/* System calls with up to six arguments, for the test programs. Numbers: Linux on x86-64. */
#ifndef CALLS_H
#define CALLS_H
#include "lib/lamina.h"

static long syscall6(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

static long call0(long n) { return syscall6(n, 0, 0, 0, 0, 0, 0); }
static long call1(long n, long a) { return syscall6(n, a, 0, 0, 0, 0, 0); }
static long call2(long n, long a, long b) { return syscall6(n, a, b, 0, 0, 0, 0); }
static long call3(long n, long a, long b, long c) { return syscall6(n, a, b, c, 0, 0, 0); }
static long call4(long n, long a, long b, long c, long d) { return syscall6(n, a, b, c, d, 0, 0); }

enum {
    SYS_read = 0, SYS_close = 3, SYS_mmap = 9, SYS_munmap = 11, SYS_brk = 12, SYS_sigaction = 13, SYS_sigprocmask = 14,
    SYS_sigreturn = 15, SYS_pipe = 22, SYS_pause = 34, SYS_alarm = 37, SYS_clone = 56, SYS_fork = 57, SYS_vfork = 58,
    SYS_execve = 59, SYS_exit = 60, SYS_wait4 = 61, SYS_kill = 62, SYS_getppid = 110, SYS_futex = 202,
    SYS_exit_group = 231
};

static void line(const char *what, long value) {
    print(what);
    print(" ");
    print_number(value);
    print("\n");
}

/* Signal handlers need a way back: this is what SA_RESTORER names. */
void restore(void);
asm(".globl restore\nrestore:\n mov $15, %rax\n syscall\n");

struct action { void (*handler)(int); unsigned long flags; void (*restorer)(void); unsigned long mask; };

static long on_signal(int number, void (*handler)(int), unsigned long flags) {
    struct action new = { handler, flags | 0x04000000, restore, 0 };
    return call4(SYS_sigaction, number, (long)&new, 0, 8);
}
#endif
