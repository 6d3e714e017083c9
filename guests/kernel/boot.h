/* What the hypervisor tells a kernel at its start; the layout is the boot protocol's, version 1. */

#ifndef BOOT_H
#define BOOT_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define BOOT_MAGIC 0x3130414e494d414cUL /* "LAMINA01" */

struct boot_info {
    u64 magic;
    u32 version;
    u32 size;
    u64 memory_bytes;
    u32 vcpu_count;
    u32 command_line_bytes;
    u64 command_line; /* ends with a zero byte */
    u64 kernel_start;
    u64 kernel_end;
    u64 tsc_hz;
    u32 serial_port;
    u32 serial_vector;
};

#endif
