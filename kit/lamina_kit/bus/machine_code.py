"""Three atomic operations on a memory bus as machine code: for processes that need no more, and so no compiler.

numba with LLVM is 55 MB and 0.3 s in a process. A service that only writes guests' memory needs of it what stands here:
`mark_written`, `change_pins` and `swap64` mean the same as in `atomics.py`, which says why they are as they are; a test
plays both against each other. The bytes are what gcc makes of this, position-independent, without calls to anything:

    mark_written(head, first, count):                    push(head, frame, state):
        fence                                                again: position = head[128]
        for frame in first … first + count:                  if position - head[192] >= 4096:
            word = state[frame]                                  state &= ~QUEUED; head[256] = 1; return
            if word has DIRTY and not EXEC: next             if not cas(head[128], position, position + 1): again
            before = state |= DIRTY (EXEC: and QUEUED)       head[4096 + position % 4096 * 8] = frame + 1
            if EXEC in word and QUEUED not in before,
            or EXEC only in before and QUEUED is new: push

Every load that counts is a `mov` and every store an `xchg` or a locked instruction, which is what a compiler makes of
sequentially consistent ones on x86. The assembly beside the bytes is theirs: a test assembles it and compares.
`docs/adr/0058-machine-code-of-the-bus.md` has the reasons, and where this code does not run.

x86-64, System V calling convention. Source: Intel SDM vol. 2 (encodings), vol. 3, 8.1 (locked operations).
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import platform
import sys
from collections.abc import Callable
from operator import index
from typing import NamedTuple

# fmt: off
_CODE = bytes.fromhex(
    # push:
    "4889f9"              #   0: mov %rdi,%rcx
    "4c8d8180000000"      #   3: lea 0x80(%rcx),%r8
    "488bb980000000"      #   a: mov 0x80(%rcx),%rdi
    "4889f8"              #  11: mov %rdi,%rax
    "4c8b89c0000000"      #  14: mov 0xc0(%rcx),%r9
    "4c29c8"              #  1b: sub %r9,%rax
    "483dff0f0000"        #  1e: cmp $0xfff,%rax
    "7612"                #  24: jbe 38
    "f08322f7"            #  26: lock andl $0xfffffff7,(%rdx)
    "b801000000"          #  2a: mov $0x1,%eax
    "48878100010000"      #  2f: xchg %rax,0x100(%rcx)
    "eb1f"                #  36: jmp 57
    "4c8d4f01"            #  38: lea 0x1(%rdi),%r9
    "4889f8"              #  3c: mov %rdi,%rax
    "f04d0fb108"          #  3f: lock cmpxchg %r9,(%r8)
    "75bd"                #  44: jne 3
    "81e7ff0f0000"        #  46: and $0xfff,%edi
    "48ffc6"              #  4c: inc %rsi
    "4887b4f900100000"    #  4f: xchg %rsi,0x1000(%rcx,%rdi,8)
    "c3"                  #  57: ret
    # mark_written:
    "55"                  #  58: push %rbp
    "4989fb"              #  59: mov %rdi,%r11
    "4989f2"              #  5c: mov %rsi,%r10
    "53"                  #  5f: push %rbx
    "488d1c16"            #  60: lea (%rsi,%rdx,1),%rbx
    "0faef0"              #  64: mfence
    "488b6f28"            #  67: mov 0x28(%rdi),%rbp
    "4801fd"              #  6b: add %rdi,%rbp
    "4939da"              #  6e: cmp %rbx,%r10
    "7354"                #  71: jae c7
    "4a8d549500"          #  73: lea 0x0(%rbp,%r10,4),%rdx
    "8b02"                #  78: mov (%rdx),%eax
    "89c1"                #  7a: mov %eax,%ecx
    "83e105"              #  7c: and $0x5,%ecx
    "83f904"              #  7f: cmp $0x4,%ecx
    "743e"                #  82: je c2
    "a801"                #  84: test $0x1,%al
    "8b02"                #  86: mov (%rdx),%eax
    "7414"                #  88: je 9e
    "89c6"                #  8a: mov %eax,%esi
    "89c1"                #  8c: mov %eax,%ecx
    "83ce0c"              #  8e: or $0xc,%esi
    "f00fb132"            #  91: lock cmpxchg %esi,(%rdx)
    "75f3"                #  95: jne 8a
    "80e108"              #  97: and $0x8,%cl
    "7526"                #  9a: jne c2
    "eb19"                #  9c: jmp b7
    "89c6"                #  9e: mov %eax,%esi
    "89c1"                #  a0: mov %eax,%ecx
    "83ce04"              #  a2: or $0x4,%esi
    "f00fb132"            #  a5: lock cmpxchg %esi,(%rdx)
    "75f3"                #  a9: jne 9e
    "80e101"              #  ab: and $0x1,%cl
    "7412"                #  ae: je c2
    "f00fba2a03"          #  b0: lock btsl $0x3,(%rdx)
    "720b"                #  b5: jb c2
    "4c89d6"              #  b7: mov %r10,%rsi
    "4c89df"              #  ba: mov %r11,%rdi
    "e83effffff"          #  bd: call 0
    "49ffc2"              #  c2: inc %r10
    "eba7"                #  c5: jmp 6e
    "5b"                  #  c7: pop %rbx
    "5d"                  #  c8: pop %rbp
    "c3"                  #  c9: ret
    # change_pins:
    "8b07"                #  ca: mov (%rdi),%eax
    "89c2"                #  cc: mov %eax,%edx
    "81e200ffff00"        #  ce: and $0xffff00,%edx
    "85f6"                #  d4: test %esi,%esi
    "7410"                #  d6: je e8
    "81fa00ffff00"        #  d8: cmp $0xffff00,%edx
    "741f"                #  de: je ff
    "8d9000010000"        #  e0: lea 0x100(%rax),%edx
    "eb0a"                #  e6: jmp f2
    "85d2"                #  e8: test %edx,%edx
    "7413"                #  ea: je ff
    "8d9000ffffff"        #  ec: lea -0x100(%rax),%edx
    "f00fb117"            #  f2: lock cmpxchg %edx,(%rdi)
    "75d2"                #  f6: jne ca
    "c1ea08"              #  f8: shr $0x8,%edx
    "0fb7c2"              #  fb: movzwl %dx,%eax
    "c3"                  #  fe: ret
    "4883c8ff"            #  ff: or $0xffffffffffffffff,%rax
    "c3"                  # 103: ret
    # swap64:
    "4889f0"              # 104: mov %rsi,%rax
    "f0480fb117"          # 107: lock cmpxchg %rdx,(%rdi)
    "c3"                  # 10c: ret
)
# fmt: on
_MARK_WRITTEN, _CHANGE_PINS, _SWAP64 = 0x58, 0xCA, 0x104
_WORD_BITS = 64


class BusCode(NamedTuple):
    """The operations. Addresses are absolute in this process and not checked here. They hold the GIL, as numba's do."""

    mark_written: Callable[[int, int, int], None]
    change_pins: Callable[[int, bool], int]
    swap64: Callable[[int, int, int], int]


@functools.cache
def loaded() -> BusCode | None:
    """Returns the operations in memory of this process, or None on another processor or where code cannot be made."""
    if platform.machine() != "x86_64" or sys.maxsize < 1 << 32 or os.name != "posix":
        return None
    code = _placed(_CODE)
    return None if code is None else _callable(code)


def _placed(code: bytes) -> int | None:
    """Returns the address of `code` in memory that can be run and no longer written, or None where that is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return None
    memory.write(code)
    first = ctypes.c_char.from_buffer(memory)  # keeps the memory from being unmapped
    address = ctypes.addressof(first)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_EXEC):
        return None  # a machine that forbids new code, by SELinux for example
    _kept.append(first)
    return address


def _callable(code: int) -> BusCode:
    """Returns what calls the code at an address.

    Arguments are declared as pointers, which ctypes converts in half the time of 64-bit numbers; it would cut numbers
    that do not fit, and take None: hence `index`, and a look at the words.
    """
    word, number = ctypes.c_void_p, ctypes.c_uint64
    mark = ctypes.PYFUNCTYPE(None, word, word, word)(code + _MARK_WRITTEN)
    change = ctypes.PYFUNCTYPE(ctypes.c_int64, word, word)(code + _CHANGE_PINS)
    swap = ctypes.PYFUNCTYPE(number, word, word, word)(code + _SWAP64)

    def mark_written(head: int, first: int, count: int) -> None:
        mark(head, index(first), index(count))

    def change_pins(state: int, more: bool) -> int:
        count: int = change(index(state), more)
        return count

    def swap64(address: int, expected: int, new: int) -> int:
        expected, new = index(expected), index(new)
        if expected >> _WORD_BITS or new >> _WORD_BITS:
            raise OverflowError(f"{expected:#x} or {new:#x} does not fit {_WORD_BITS} bits")
        found: int = swap(index(address), expected, new)
        return found

    return BusCode(mark_written, change_pins, swap64)


_kept: list[ctypes.c_char] = []
"""What holds the memory of the code, which is never given back."""
