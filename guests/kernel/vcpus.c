/* Work is a number in a mailbox; a call of the hypervisor wakes its owner, which answers through the mailbox. */

#include "vcpus.h"
#include "cpu.h"
#include "hypercall.h"
#include "paging.h"
#include "panic.h"
#include "serial.h"
#include "trap.h"

#define MAX_VCPUS 16
#define STOP (~0UL)

static int vcpus = 1;
static volatile int open_for_all;
static volatile int ready[MAX_VCPUS];
static volatile u64 work[MAX_VCPUS], result[MAX_VCPUS];

/* A chain of numbers in which each depends on the one before: xorshift, from the vCPU's own seed. */
static u64 compute(int number, u64 rounds)
{
    u64 value = 0x9e3779b97f4a7c15UL * (number + 1);
    while (rounds--) {
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
    }
    return value;
}

void secondary_main(int number)
{
    calls_open();
    while (!open_for_all)
        hypercall(CALL_YIELD, 0);
    write_cr3(kernel_root);
    tables_load(number);
    ready[number] = 1;
    for (;;) {
        interrupts_off();
        while (!work[number]) {
            wait_for_interrupt();
            interrupts_off();
        }
        if (work[number] == STOP)
            stop_vcpu();
        interrupts_on();
        result[number] = compute(number, work[number]);
        work[number] = 0;
    }
}

void vcpus_open(int count)
{
    vcpus = count;
    at_panic(vcpus_stop);
    open_for_all = 1;
    for (int number = 1; number < count; number++)
        while (!ready[number])
            hypercall(CALL_YIELD, 0);
}

static void give(int number, u64 rounds)
{
    work[number] = rounds;
    hypercall(CALL_WAKE, number);
}

void vcpus_compute(u64 rounds)
{
    for (int number = 1; number < vcpus; number++)
        give(number, rounds);
    result[0] = compute(0, rounds);
    for (int number = 0; number < vcpus; number++) {
        while (work[number])
            hypercall(CALL_YIELD, 0);
        print("vcpu ");
        print_number(number);
        print(": ");
        print_hex(result[number]);
        print("\n");
    }
}

void vcpus_stop(void)
{
    for (int number = 1; number < vcpus; number++)
        give(number, STOP);
}
