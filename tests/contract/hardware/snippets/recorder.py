"""The handler of every vector: it writes down what it sees, and goes on as R15 says.

R15 is 0: stops with HLT. 1: returns to where the event was. 2: stores R13 at [R14] and returns so. Anything else: goes
on there. R15 is 0 afterwards.
"""

from __future__ import annotations

import struct

from tests.contract.hardware.snippets.places import RECORDER, STUBS

SOURCE = """
    push rax
    push rbx
    mov rbx, LOG
    mov rax, [rbx]
    inc qword ptr [rbx]
    shl rax, 6
    lea rbx, [rbx+rax+64]
    mov rax, [rsp+16]       # vector
    mov [rbx], rax
    mov rax, [rsp+24]       # error code
    mov [rbx+8], rax
    mov rax, [rsp+32]       # RIP
    mov [rbx+16], rax
    mov rax, [rsp+40]       # CS
    mov [rbx+24], rax
    mov rax, [rsp+48]       # RFLAGS
    mov [rbx+32], rax
    mov rax, [rsp+56]       # RSP
    mov [rbx+40], rax
    mov rax, [rsp+64]       # SS
    mov [rbx+48], rax
    mov rax, cr2
    mov [rbx+56], rax
    test r15, r15
    jz stop
    cmp r15, 1
    je back
    cmp r15, 2
    jne other
    mov [r14], r13
    jmp back
other:
    mov [rsp+32], r15
back:
    xor r15d, r15d
    pop rbx
    pop rax
    add rsp, 16
    iretq
stop:
    pop rbx
    pop rax
    hlt
    jmp stop
"""

WITH_CODE = (8, 10, 11, 12, 13, 14, 17, 21)
"""Vectors that push an error code. Source: Intel SDM vol. 3, 6.3.1."""


def stubs() -> bytes:
    """Returns the code at STUBS: pushes 0 where the processor pushes no error code, then the vector."""
    code = b""
    for vector in range(256):
        code += b"\x90\x90" if vector in WITH_CODE else b"\x6a\x00"  # nop, nop or push 0
        code += b"\x68" + struct.pack("<i", vector)  # push vector
        here = STUBS + len(code) + 5
        code += b"\xe9" + struct.pack("<i", RECORDER - here)  # jmp RECORDER
        code += b"\xcc" * 4
    return code


def gate(offset: int, level: int = 0, ist: int = 0, kind: int = 0x8E, selector: int = 8) -> bytes:
    """Returns an entry of the IDT: an interrupt gate unless `kind` says otherwise."""
    low = (offset & 0xFFFF) | selector << 16 | ist << 32 | (kind | level << 5) << 40 | (offset >> 16 & 0xFFFF) << 48
    return struct.pack("<QQ", low, offset >> 32)


def idt() -> bytes:
    """Returns an IDT with a gate for each vector; 3, 4 and 0x80 are open to ring 3."""
    return b"".join(gate(STUBS + 16 * vector, 3 if vector in (3, 4, 0x80) else 0) for vector in range(256))
