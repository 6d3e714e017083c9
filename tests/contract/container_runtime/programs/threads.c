/* Two threads add to one number under a futex lock; the main thread waits for both by CLONE_CHILD_CLEARTID. */
#include "calls.h"

enum { ROUNDS = 2000, FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x200000 | 0x1000000 };
static volatile int lock = 0;
static volatile long total = 0;
static int tids[2];
static char stacks[2][16384];

static int exchange(volatile int *at, int value) {
    asm volatile("xchg %0, %1" : "+r"(value), "+m"(*at) : : "memory");
    return value;
}

static void take(void) {
    while (exchange(&lock, 2)) syscall6(SYS_futex, (long)&lock, 128, 2, 0, 0, 0);
}

static void give(void) {
    exchange(&lock, 0);
    syscall6(SYS_futex, (long)&lock, 129, 1, 0, 0, 0);
}

void work(void) {
    for (long i = 0; i < ROUNDS; i++) {
        take();
        total++;
        give();
    }
    call1(SYS_exit, 0);
}

long start(void *stack, int *tid);
asm(".globl start\nstart:\n"
    " mov %rsi, %r10\n mov %rdi, %rsi\n mov $0x1250f00, %rdi\n mov $0, %rdx\n mov $0, %r8\n mov $56, %rax\n syscall\n"
    " test %rax, %rax\n jnz parent\n call work\nparent:\n ret\n");

int main(int argc, char **argv) {
    for (int i = 0; i < 2; i++) {
        tids[i] = 1;
        if (start(stacks[i] + 16384 - 16, &tids[i]) < 0) return 1;
    }
    for (int i = 0; i < 2; i++) {
        int seen;
        while ((seen = *(volatile int *)&tids[i])) syscall6(SYS_futex, (long)&tids[i], 0, seen, 0, 0, 0);
    }
    line("total", total);
    return 0;
}
