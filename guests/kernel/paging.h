/*
 * The kernel's own address space.
 *
 *     0x0000_0000_0000   page 0 is not mapped: a null pointer faults
 *     0x0000_0000_1000   the example of the textbooks: this page lies at guest physical 0x5000
 *     0x0000_0000_2000   guest RAM, one to one
 *     0x0080_0000_0000   the user program: its page, and a stack that grows by page faults
 *     0x0100_0000_0000   the kernel's heap: 64 GiB, mapped page by page when it is touched
 */

#ifndef PAGING_H
#define PAGING_H

#include "boot.h"

#define PAGE 4096UL
#define PRESENT 0x01UL
#define WRITABLE 0x02UL
#define USER 0x04UL
#define LARGE 0x80UL
#define ADDRESS 0x000ffffffffff000UL

#define EXAMPLE_VIRTUAL 0x1000UL
#define EXAMPLE_PHYSICAL 0x5000UL
#define USER_CODE 0x8000000000UL
#define USER_STACK_TOP 0x8000100000UL
#define USER_STACK_BYTES 0x10000UL
#define HEAP 0x10000000000UL
#define HEAP_BYTES (64UL << 30)

extern u64 demand_faults;
extern u64 kernel_root;

void paging_open(const struct boot_info *info);
u64 free_pages(void);

/* Maps one page; makes the tables that it needs. Stops the VM when RAM is used up. */
void map_page(u64 virtual, u64 physical, u64 rights);

/* Returns the entry that maps a page of 4 KiB, 0 when there is none. */
u64 entry_of(u64 virtual);

/* Takes a zeroed page of RAM; returns its guest physical address. */
u64 take_page(void);

/* Maps the page of a fault when it lies in the heap or in the user's stack; returns whether it did. */
int demand_map(u64 virtual, int from_user);

#endif
