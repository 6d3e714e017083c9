/* fault KIND: does what no program should. */
#include "calls.h"

static volatile long zero = 0;
int main(int argc, char **argv);

static void null_pointer(void) { *(volatile long *)8 = 1; }
static void write_text(void) { *(volatile char *)main = 0; }
static void run_data(void) { static char code[] = { (char)0xc3 }; ((void (*)(void))code)(); }
static void divide(void) { zero = 1 / zero; }
static void undefined(void) { asm volatile(".byte 0x0f, 0x0b"); }
static void privileged(void) { asm volatile("hlt"); }
static void port(void) { asm volatile("mov $0x3f8, %rdx\n out %al, %dx"); }
static void breakpoint(void) { asm volatile("int3"); }
static void wild_jump(void) { ((void (*)(void))0xdeadbeef000)(); }
static void non_canonical(void) { *(volatile long *)0x8000000000000000 = 1; }
static void deep(long n) { volatile char room[4096]; room[0] = (char)n; deep(n + 1); room[1] = room[0]; }
static void overflow(void) { deep(0); }

int main(int argc, char **argv) {
    void (*kinds[])(void) = { null_pointer, write_text, run_data, divide, undefined, privileged, port, breakpoint,
                              wild_jump, non_canonical, overflow };
    kinds[number_of(argv[1])]();
    return 0;
}
