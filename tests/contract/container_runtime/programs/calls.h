/* What the test programs have in place of a C library: system calls with up to six arguments, and lines of text.
 *
 * Numbers and structures are those of Linux on x86-64. Source: syscalls(2), sigaction(2).
 */
#ifndef CALLS_H
#define CALLS_H

enum {
    SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_mmap = 9, SYS_munmap = 11, SYS_brk = 12, SYS_sigaction = 13,
    SYS_pipe = 22, SYS_pause = 34, SYS_nanosleep = 35, SYS_alarm = 37, SYS_getpid = 39, SYS_fork = 57, SYS_vfork = 58,
    SYS_execve = 59, SYS_exit = 60, SYS_wait4 = 61, SYS_kill = 62, SYS_uname = 63, SYS_getppid = 110, SYS_futex = 202,
    SYS_exit_group = 231
};

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

static long number_of(const char *text) {
    long value = 0;
    while (*text >= '0' && *text <= '9') value = value * 10 + (*text++ - '0');
    return value;
}

/* Puts text, and a number behind it, into one line and writes it with one call. */
static char text_buffer[256];

static long put(long at, const char *text) {
    while (*text) text_buffer[at++] = *text++;
    return at;
}

static void print(const char *text) { call3(SYS_write, 1, (long)text_buffer, put(0, text)); }

static void line(const char *what, long value) {
    char digits[24];
    long at = 23;
    unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
    digits[at] = 0;
    do digits[--at] = (char)('0' + rest % 10); while (rest /= 10);
    if (value < 0) digits[--at] = '-';
    call3(SYS_write, 1, (long)text_buffer, put(put(put(put(0, what), " "), digits + at), "\n"));
}

static void sleep_seconds(long seconds) {
    long span[2];
    span[0] = seconds;
    span[1] = 0;
    call2(SYS_nanosleep, (long)span, 0);
}

/* Signal handlers need a way back: this is what SA_RESTORER names. */
void restore(void);
asm(".globl restore\nrestore:\n mov $15, %rax\n syscall\n");

struct action { void (*handler)(int); unsigned long flags; void (*restorer)(void); unsigned long mask; };

static long on_signal(int number, void (*handler)(int), unsigned long flags) {
    struct action new;
    new.handler = handler;
    new.flags = flags | 0x04000000;
    new.restorer = restore;
    new.mask = 0;
    return call4(SYS_sigaction, number, (long)&new, 0, 8);
}
#endif
