/* Single instructions of the processor, and calls to the hypervisor. */

#ifndef CPU_H
#define CPU_H

#include "boot.h"

static inline void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "d"(port)); }

static inline u8 in8(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "d"(port));
    return value;
}

static inline void interrupts_off(void) { __asm__ volatile("cli"); }
static inline void interrupts_on(void) { __asm__ volatile("sti"); }

/* Sleeps until the next interrupt; between the two instructions none is taken. */
static inline void wait_for_interrupt(void) { __asm__ volatile("sti; hlt"); }

/* Stops this vCPU for good; the VM powers off when all have stopped. */
static inline void stop_vcpu(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

static inline void cpuid(u32 leaf, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx)
{
    __asm__ volatile("cpuid" : "=a"(*eax), "=b"(*ebx), "=c"(*ecx), "=d"(*edx) : "a"(leaf), "c"(0));
}

static inline u64 timestamp(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (u64)high << 32 | low;
}

static inline u64 read_cr2(void)
{
    u64 value;
    __asm__ volatile("mov %%cr2, %0" : "=r"(value));
    return value;
}

static inline u64 read_cr3(void)
{
    u64 value;
    __asm__ volatile("mov %%cr3, %0" : "=r"(value));
    return value;
}

static inline void write_cr3(u64 value) { __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory"); }

/* Takes a lock that several vCPUs want. */
static inline int exchange(volatile int *place, int value)
{
    __asm__ volatile("xchg %0, (%1)" : "+a"(value) : "d"(place) : "memory");
    return value;
}

/*
 * Calls of the hypervisor: number in rax, argument in rbx, result in rax. CPUID says how they are made: by VMCALL where
 * that reaches our hypervisor, and by a write to a port everywhere.
 */
#define CALL_POWER_OFF 0
#define CALL_YIELD 1
#define CALL_WAKE 2

#define HYPERVISOR_LEAF 0x40000001
#define VMCALL_ANSWERED 1

extern u32 call_port; /* 0: by VMCALL */

/* Finds out how the hypervisor is called; each vCPU does so before its first call. */
static inline void calls_open(void)
{
    u32 a, b, c, d;
    cpuid(HYPERVISOR_LEAF, &a, &b, &c, &d);
    call_port = d & VMCALL_ANSWERED ? 0 : c;
}

static inline long hypercall(long number, long argument)
{
    long result;
    if (call_port)
        __asm__ volatile("outl %%eax, %3" : "=a"(result) : "a"(number), "b"(argument), "d"((u16)call_port) : "memory");
    else
        __asm__ volatile(".byte 0x0f, 0x01, 0xc1" /* vmcall */ : "=a"(result) : "a"(number), "b"(argument) : "memory");
    return result;
}

#endif
