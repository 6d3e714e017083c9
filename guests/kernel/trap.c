/* The descriptor tables of the processor, and what happens when a gate is taken. */

#include "trap.h"
#include "cpu.h"
#include "paging.h"
#include "panic.h"
#include "serial.h"

#define MAX_VCPUS 16
#define CODE 0x08
#define FIRST_TASK 0x30

#define UNDEFINED 6
#define PAGE_FAULT 14
#define SERIAL 0x24
#define SYSTEM_CALL 0x80

u64 system_calls;
u64 serial_interrupts;

struct pointer {
    u16 limit;
    u64 base;
} __attribute__((packed));

struct gate {
    u16 offset_low, selector;
    u8 stack, kind;
    u16 offset_middle;
    u32 offset_high, reserved;
} __attribute__((packed));

struct task {
    u32 reserved;
    u64 stack[3];
    u64 reserved_too;
    u64 interrupt_stack[7];
    u64 reserved_again;
    u16 reserved_last, io_map;
} __attribute__((packed));

/* Null, kernel code, kernel data, nothing, user data, user code, then 16 bytes a task. */
static u64 gdt[6 + 2 * MAX_VCPUS] = {
    0, 0x00af9b000000ffffUL, 0x00cf93000000ffffUL, 0, 0x00cff3000000ffffUL, 0x00affb000000ffffUL,
};
static struct gate idt[256];
static struct task tasks[MAX_VCPUS];
static u8 trap_stacks[MAX_VCPUS][4096] __attribute__((aligned(16)));

extern u8 trap_0[], trap_1[], trap_2[], trap_3[], trap_4[], trap_5[], trap_6[], trap_7[], trap_8[], trap_9[];
extern u8 trap_10[], trap_11[], trap_12[], trap_13[], trap_14[], trap_16[], trap_17[], trap_18[], trap_19[];
extern u8 trap_36[], trap_128[];
extern u8 user_start[], user_end[];

static void set_gate(int vector, u8 *handler, int ring)
{
    u64 address = (u64)handler;
    struct gate *gate = &idt[vector];
    gate->offset_low = address;
    gate->selector = CODE;
    gate->kind = 0x8e | ring << 5; /* present, interrupt gate */
    gate->offset_middle = address >> 16;
    gate->offset_high = address >> 32;
}

static void set_task(int number)
{
    struct task *task = &tasks[number];
    u64 base = (u64)task, limit = sizeof *task - 1;
    task->stack[0] = (u64)&trap_stacks[number + 1];
    task->io_map = sizeof *task;
    gdt[6 + 2 * number] = limit | (base & 0xffffff) << 16 | 0x89UL << 40 | (base >> 24 & 0xff) << 56;
    gdt[7 + 2 * number] = base >> 32;
}

void tables_build(int vcpus)
{
    u8 *exceptions[] = {trap_0, trap_1, trap_2, trap_3, trap_4, trap_5, trap_6, trap_7, trap_8, trap_9,
                        trap_10, trap_11, trap_12, trap_13, trap_14, 0, trap_16, trap_17, trap_18, trap_19};
    for (int vector = 0; vector < 20; vector++)
        if (exceptions[vector])
            set_gate(vector, exceptions[vector], 0);
    set_gate(SERIAL, trap_36, 0);
    set_gate(SYSTEM_CALL, trap_128, 3);
    for (int number = 0; number < vcpus; number++)
        set_task(number);
}

void tables_load(int number)
{
    struct pointer gdtr = {sizeof gdt - 1, (u64)gdt};
    struct pointer idtr = {sizeof idt - 1, (u64)idt};
    load_tables(&gdtr, &idtr, FIRST_TASK + 16 * number);
}

static void unexpected(struct trap *trap)
{
    print("\nexception ");
    print_number(trap->vector);
    print(" code ");
    print_hex(trap->code);
    print(" rip ");
    print_hex(trap->rip);
    print(" cr2 ");
    print_hex(read_cr2());
    panic("unexpected exception");
}

static void system_call(struct trap *trap)
{
    system_calls++;
    if (trap->rax == 1 && trap->rdi >= USER_CODE && trap->rsi <= PAGE && trap->rdi + trap->rsi <= USER_STACK_TOP)
        print_bytes((const char *)trap->rdi, trap->rsi);
    else if (trap->rax == 2) {
        print_hex(trap->rdi);
        print("\n");
    } else if (trap->rax == 3)
        leave_user();
    else
        trap->rax = -1;
}

/*
 * KVM on a processor without virtualization runs ring 3 outside the guest's gates: INT is an undefined instruction
 * there. On our INT, that is the call that it should have been.
 */
static int is_call(struct trap *trap)
{
    const u8 *code = (const u8 *)trap->rip;
    if (trap->vector == SYSTEM_CALL)
        return 1;
    if (trap->vector != UNDEFINED || (trap->cs & 3) != 3 || code[0] != 0xcd || code[1] != SYSTEM_CALL)
        return 0;
    trap->rip += 2;
    return 1;
}

void trap_handle(struct trap *trap)
{
    if (trap->vector == SERIAL) {
        serial_interrupts++;
        serial_interrupt();
    } else if (is_call(trap))
        system_call(trap);
    else if (trap->vector != PAGE_FAULT || trap->code & PRESENT || !demand_map(read_cr2(), trap->code & USER))
        unexpected(trap);
}

void user_run(void)
{
    if (!entry_of(USER_CODE)) {
        u64 page = take_page();
        u8 *to = (u8 *)page;
        for (u8 *from = user_start; from < user_end; from++)
            *to++ = *from;
        map_page(USER_CODE, page, USER);
    }
    enter_user(USER_CODE, USER_STACK_TOP);
    interrupts_on();
}
