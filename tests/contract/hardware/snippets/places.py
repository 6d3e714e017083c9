"""Where things lie in the machine that the snippets run on. In their sources these names stand for the numbers."""

from __future__ import annotations

KERNEL = 0xFFFF_8000_0000_0000
"""A snippet's own code, at ring 0: one page. The page behind it is free."""
SPARE = KERNEL + 0x1000
"""A page that the kernel may write and execute."""
STUBS = KERNEL + 0x2000
"""One stub of 16 bytes for each vector."""
RECORDER = KERNEL + 0x3000
"""What all stubs go to."""
KDATA = KERNEL + 0x10000
"""The kernel's data: half a page is the snippet's."""
LOG = KDATA + 0x800
"""How many events the recorder saw. From LOG + 64 on eight words for each: vector, error code, RIP, CS, RFLAGS, RSP,
SS, CR2."""
KSTACK = KERNEL + 0x24000
"""The top of the kernel's stack, in the TSS too."""
GDT = KERNEL + 0x30000
IDT = KERNEL + 0x31000
TSS = KERNEL + 0x32000
WINDOW = KERNEL + 0x20_0000
"""Where a snippet sees its own tables, when it asks for that."""
PAGE = KERNEL + 0x40_0000
"""Where a snippet maps pages of its own, in a page table that nothing else uses."""
LARGE = KERNEL + 0x4000_0000
"""Where a snippet maps a large page."""
UTEXT = 0x40_0000
"""Code of ring 3: two pages."""
UDATA = 0x60_0000
"""Data of ring 3: 32 pages, whose end is the stack."""
USTACK = UDATA + 0x1_1000

NAMES = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
