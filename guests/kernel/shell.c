/* Commands come as lines over the serial port; the answer goes back the same way. */

#include "shell.h"
#include "cpu.h"
#include "hypercall.h"
#include "paging.h"
#include "serial.h"
#include "trap.h"
#include "vcpus.h"

#define LINE 256

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* Cuts a line at its first space; returns what is behind it. */
static char *split(char *line)
{
    while (*line && *line != ' ')
        line++;
    if (!*line)
        return line;
    *line++ = 0;
    while (*line == ' ')
        line++;
    return line;
}

static u64 number(const char *text)
{
    u64 value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (*text++ - '0');
    return value;
}

static void read_line(char *line)
{
    int at = 0, byte;
    while ((byte = serial_wait()) != '\n' && byte != '\r') {
        if (byte == 0x7f && at > 0) {
            at--;
            print("\b \b");
        } else if (byte >= ' ' && byte < 0x7f && at < LINE - 1) {
            char echo = byte;
            line[at++] = echo;
            print_bytes(&echo, 1);
        }
    }
    line[at] = 0;
    print("\n");
}

static void show_memory(const struct boot_info *info)
{
    print_line("memory: ", info->memory_bytes >> 10, " KiB");
    print_line("free pages: ", free_pages(), "");
    print_line("demand faults: ", demand_faults, "");
    print("cr3: ");
    print_hex(read_cr3());
    print(", entry of 0x1000: ");
    print_hex(entry_of(EXAMPLE_VIRTUAL));
    print("\n");
}

static void show_work(const struct boot_info *info)
{
    print_line("vcpus: ", info->vcpu_count, "");
    print_line("system calls: ", system_calls, "");
    print_line("serial interrupts: ", serial_interrupts, "");
}

/*
 * Fills `mebibytes` of the heap with numbers that follow from their places, then reads all of it back twice. Memory
 * that its host loses or mixes up on the way, by swapping for example, shows as a wrong sum.
 */
static void check_sum(u64 mebibytes)
{
    u64 *words = (u64 *)HEAP, count = mebibytes << 17, sum = 0, wrong = 0;
    if (mebibytes == 0 || mebibytes * 256 > free_pages() + demand_faults) {
        print("sum: not that much memory\n");
        return;
    }
    for (u64 i = 0; i < count; i += 8)
        words[i] = i * 0x9e3779b97f4a7c15UL;
    for (int round = 0; round < 2; round++)
        for (u64 i = 0; i < count; i += 8) {
            wrong += words[i] != i * 0x9e3779b97f4a7c15UL;
            sum += words[i];
        }
    print("sum: ");
    print_hex(sum);
    print_line(", wrong words: ", wrong, "");
}

/* Makes an exception that no table can take: the processor shuts down. */
static void crash(void)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) nothing = {0, 0};
    __asm__ volatile("lidt (%0); ud2" : : "r"(&nothing));
}

static void halt(void)
{
    print("halting\n");
    vcpus_stop();
    stop_vcpu();
}

static void spin(void)
{
    for (;;)
        ;
}

static void help(void)
{
    print("echo TEXT   mem   ps   run   sum MIB   compute ROUNDS   touch ADDRESS   spin   crash   halt   off\n");
}

static void execute(char *line, const struct boot_info *info)
{
    char *rest = split(line);
    if (same(line, "echo")) {
        print(rest);
        print("\n");
    } else if (same(line, "mem"))
        show_memory(info);
    else if (same(line, "ps"))
        show_work(info);
    else if (same(line, "run"))
        user_run();
    else if (same(line, "sum"))
        check_sum(number(rest));
    else if (same(line, "compute"))
        vcpus_compute(number(rest));
    else if (same(line, "touch"))
        print_line("touched: ", *(volatile u8 *)number(rest), "");
    else if (same(line, "spin"))
        spin();
    else if (same(line, "crash"))
        crash();
    else if (same(line, "halt"))
        halt();
    else if (same(line, "off"))
        hypercall(CALL_POWER_OFF, 0);
    else if (*line)
        help();
}

void shell(const struct boot_info *info)
{
    static char line[LINE];
    for (;;) {
        print("> ");
        read_line(line);
        execute(line, info);
    }
}
