/* Interrupts, exceptions and system calls. */

#ifndef TRAP_H
#define TRAP_H

#include "boot.h"

/* What trap.S leaves on the stack, lowest address first. */
struct trap {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, code;
    u64 rip, cs, rflags, rsp, ss;
};

extern u64 system_calls;
extern u64 serial_interrupts;

/* Builds the GDT, the IDT and a task state segment for each vCPU. */
void tables_build(int vcpus);

/* Loads them on vCPU `number`. */
void tables_load(int number);

void trap_handle(struct trap *trap);

/* Runs the user program at ring 3; returns when it exits. */
void user_run(void);

#endif
