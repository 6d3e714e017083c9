/* Page tables and page faults: RAM is handed out in order of address and never taken back. */

#include "paging.h"
#include "cpu.h"
#include "panic.h"

u64 demand_faults;
u64 kernel_root;

static u64 next_page, end_of_memory;

u64 free_pages(void) { return (end_of_memory - next_page) / PAGE; }

u64 take_page(void)
{
    u64 *words, page = next_page;
    if (page + PAGE > end_of_memory)
        panic("out of memory");
    next_page += PAGE;
    words = (u64 *)page;
    for (u64 i = 0; i < PAGE / 8; i++)
        words[i] = 0;
    return page;
}

/* Returns the table below an entry, made if it is not there. */
static u64 *below(u64 *entry, u64 rights)
{
    if (!(*entry & PRESENT))
        *entry = take_page() | PRESENT | WRITABLE;
    *entry |= rights & USER;
    return (u64 *)(*entry & ADDRESS);
}

static u64 index_of(u64 virtual, int level) { return virtual >> (12 + 9 * (level - 1)) & 511; }

void map_page(u64 virtual, u64 physical, u64 rights)
{
    u64 *table = (u64 *)kernel_root;
    for (int level = 4; level > 1; level--)
        table = below(&table[index_of(virtual, level)], rights);
    table[index_of(virtual, 1)] = physical | rights | PRESENT;
}

u64 entry_of(u64 virtual)
{
    u64 *table = (u64 *)kernel_root;
    for (int level = 4; level > 1; level--) {
        u64 entry = table[index_of(virtual, level)];
        if (!(entry & PRESENT) || entry & LARGE)
            return 0;
        table = (u64 *)(entry & ADDRESS);
    }
    return table[index_of(virtual, 1)];
}

/* Maps a range one to one with large pages of 2 MiB, from a multiple of 2 MiB on. */
static void map_large(u64 start, u64 end)
{
    for (u64 at = start; at < end; at += 2UL << 20) {
        u64 *table = below(&((u64 *)kernel_root)[index_of(at, 4)], 0);
        table = below(&table[index_of(at, 3)], 0);
        table[index_of(at, 2)] = at | PRESENT | WRITABLE | LARGE;
    }
}

void paging_open(const struct boot_info *info)
{
    next_page = (info->kernel_end + PAGE - 1) & ~(PAGE - 1);
    end_of_memory = info->memory_bytes & ~(PAGE - 1);
    kernel_root = take_page();
    for (u64 at = EXAMPLE_VIRTUAL + PAGE; at < 2UL << 20; at += PAGE)
        map_page(at, at, WRITABLE);
    map_page(EXAMPLE_VIRTUAL, EXAMPLE_PHYSICAL, WRITABLE);
    map_large(2UL << 20, info->memory_bytes);
    write_cr3(kernel_root);
}

int demand_map(u64 virtual, int from_user)
{
    int heap = !from_user && virtual >= HEAP && virtual < HEAP + HEAP_BYTES;
    int stack = virtual < USER_STACK_TOP && virtual >= USER_STACK_TOP - USER_STACK_BYTES;
    if (!heap && !stack)
        return 0;
    map_page(virtual & ADDRESS, take_page(), stack ? WRITABLE | USER : WRITABLE);
    demand_faults++;
    return 1;
}
