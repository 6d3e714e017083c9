/* What the processor can do and C cannot say: single instructions here, longer ways in cpu.S. */

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

/* In cpu.S: loads the GDT, the IDT and the task register. */
void load_tables(const void *gdt, const void *idt, long task_selector);

/* In cpu.S: goes to ring 3 with interrupts on, and returns when leave_user is called. */
void enter_user(long rip, long rsp);
void leave_user(void);

#endif
