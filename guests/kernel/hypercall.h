/* Calls to the hypervisor. */

#ifndef HYPERCALL_H
#define HYPERCALL_H

#include "cpu.h"

/*
 * Number in rax, argument in rbx, result in rax. CPUID says how they are made: by VMCALL where that reaches our
 * hypervisor, and by a write to a port everywhere.
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
