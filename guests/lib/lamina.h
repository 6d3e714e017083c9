/* The little that guest programs need in place of a C library: system calls, text out, numbers.
 *
 * Numbers and structures are those of Linux on x86-64. Source: syscalls(2), uname(2), nanosleep(2).
 */
#ifndef LAMINA_H
#define LAMINA_H

typedef unsigned long size_t;
typedef long ssize_t;

enum {
    SYS_write = 1, SYS_rt_sigaction = 13, SYS_nanosleep = 35, SYS_getpid = 39, SYS_uname = 63, SYS_exit_group = 231
};
enum { STDOUT = 1, STDERR = 2 };
enum { SIGTERM = 15 };

struct timespec { long tv_sec; long tv_nsec; };
struct utsname { char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65]; };

static long syscall3(long number, long first, long second, long third) {
    long result;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(first), "S"(second), "d"(third)
                 : "rcx", "r11", "memory");
    return result;
}

/* System calls with four arguments pass the last one in r10. */
static long syscall4(long number, long first, long second, long third, long fourth) {
    long result;
    register long last asm("r10") = fourth;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(first), "S"(second), "d"(third), "r"(last)
                 : "rcx", "r11", "memory");
    return result;
}

static size_t length(const char *text) {
    size_t n = 0;
    while (text[n]) n++;
    return n;
}

/* Lines are gathered here and written whole: one write a line, however many pieces it is made of. */
static char line_buffer[512];
static size_t line_length;

static void flush(void) {
    size_t done = 0;
    while (done < line_length) {
        long n = syscall3(SYS_write, STDOUT, (long)(line_buffer + done), (long)(line_length - done));
        if (n <= 0) break;
        done += (size_t)n;
    }
    line_length = 0;
}

static void print(const char *text) {
    for (size_t i = 0; i < length(text); i++) {
        if (line_length == sizeof line_buffer) flush();
        line_buffer[line_length++] = text[i];
        if (text[i] == '\n') flush();
    }
}

static void print_number(long value) {
    char digits[24];
    size_t at = sizeof digits - 1;
    unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
    digits[at] = 0;
    do digits[--at] = (char)('0' + rest % 10); while (rest /= 10);
    if (value < 0) digits[--at] = '-';
    print(digits + at);
}

/* Returns the number that a text begins with; 0 when it begins with none. */
static long number_of(const char *text) {
    long value = 0, sign = 1;
    if (*text == '-') sign = -1, text++;
    while (*text >= '0' && *text <= '9') value = value * 10 + (*text++ - '0');
    return sign * value;
}

static void sleep_seconds(long seconds) {
    struct timespec span = { seconds, 0 };
    syscall3(SYS_nanosleep, (long)&span, 0, 0);
}

struct sigaction { void (*handler)(int); unsigned long flags; void (*restorer)(void); unsigned long mask; };

enum { SA_RESTORER = 0x04000000 };

extern void restore_signal(void);

/* Has `handler` called on a signal. The first process of a container needs one for SIGTERM: by default the kernel lets
 * no signal but SIGKILL end a namespace's first process. Source: pid_namespaces(7). */
static long on_signal(int signal, void (*handler)(int)) {
    struct sigaction action;
    action.handler = handler;
    action.flags = SA_RESTORER;
    action.restorer = restore_signal;
    action.mask = 0;
    return syscall4(SYS_rt_sigaction, signal, (long)&action, 0, sizeof action.mask);
}

static void leave(int code) {
    syscall3(SYS_exit_group, code, 0, 0);
}

#endif
