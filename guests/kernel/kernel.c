/*
 * A small kernel for the hypervisor's own tests and for people who want to see one whole.
 *
 * It takes over its vCPU (descriptor tables, page tables, interrupts), says what it found, lets a program run at ring 3,
 * and then answers commands on the serial port. Reading order: boot.S, kernel.c, then from the lowest up: cpu.h, cpu.S,
 * hypercall.c, memory.c, serial.c, panic.c, paging.c, trap.S, trap.c, user.S, vcpus.c, shell.c. A file includes only
 * headers of files that stand before it.
 */

#include "boot.h"
#include "cpu.h"
#include "hypercall.h"
#include "paging.h"
#include "serial.h"
#include "shell.h"
#include "trap.h"
#include "vcpus.h"

/* Prints the twelve characters that a CPUID leaf returns in three registers, in the order given. */
static void print_vendor(const char *name, u32 first, u32 second, u32 third)
{
    u32 words[3];
    words[0] = first;
    words[1] = second;
    words[2] = third;
    print(name);
    print_bytes((const char *)words, 12);
    print("\n");
}

static void print_processor(void)
{
    u32 a, b, c, d;
    cpuid(0, &a, &b, &c, &d);
    print_vendor("processor: ", b, d, c);
    cpuid(1, &a, &b, &c, &d);
    if (c >> 31) {
        cpuid(0x40000000, &a, &b, &c, &d);
        print_vendor("hypervisor: ", b, c, d);
    }
}

static void print_example(void)
{
    *(volatile u64 *)EXAMPLE_VIRTUAL = 0x4c414d494e41UL;
    print("paging: virtual 0x1000 is guest physical ");
    print_hex(entry_of(EXAMPLE_VIRTUAL) & ADDRESS);
    print(*(volatile u64 *)EXAMPLE_PHYSICAL == 0x4c414d494e41UL ? ", seen from both\n" : ", but differs\n");
}

void kernel_main(const struct boot_info *info)
{
    u64 began = timestamp();
    if (info->magic != BOOT_MAGIC)
        stop_vcpu();
    calls_open();
    serial_open(info->serial_port);
    print("Lamina guest kernel\n");
    print_line("memory: ", info->memory_bytes >> 20, " MiB");
    print_line("vcpus: ", info->vcpu_count, "");
    print("command line: ");
    print((const char *)info->command_line);
    print("\n");
    print_processor();
    paging_open(info);
    tables_build(info->vcpu_count);
    tables_load(0);
    print_example();
    interrupts_on();
    vcpus_open(info->vcpu_count);
    user_run();
    print_line("demand faults: ", demand_faults, "");
    if (info->tsc_hz >= 1000000)
        print_line("booted in ", (timestamp() - began) / (info->tsc_hz / 1000000), " microseconds");
    shell(info);
}
