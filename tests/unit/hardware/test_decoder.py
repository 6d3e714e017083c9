"""Instruction lengths, from the manual's encodings."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from lamina_hardware.io import native
from lamina_hardware.io.emulator.code import decoder
from lamina_hardware.io.emulator.state import control_block

_DECODE = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)


def decode(code: bytes) -> int:
    """Returns the packed description of an instruction."""
    assert decoder.decode is not None
    buffer = ctypes.create_string_buffer(code.ljust(32, b"\x90"), 32)
    block = np.zeros(control_block.WORDS, dtype=np.uint64)
    found: int = _DECODE(native.LINKS[int(control_block.L_DECODE)])(block.ctypes.data, ctypes.addressof(buffer))
    return found


@pytest.mark.parametrize(("code", "text"), [
    ("90", "nop"), ("f3aa", "rep stosb"), ("4889e5", "mov rbp, rsp"), ("48b88877665544332211", "movabs rax, imm64"),
    ("b844332211", "mov eax, imm32"), ("66b83412", "mov ax, imm16"), ("48c7c044332211", "mov rax, imm32"),
    ("8b0425f0ff0000", "mov eax, [0xfff0]"), ("488b8424f0000000", "mov rax, [rsp+0xf0]"), 
    ("8b4508", "mov eax, [rbp+8]"),
    ("8b0500000000", "mov eax, [rip]"), ("a18877665544332211", "mov eax, [moffs64]"), ("67a144332211", "a32 moffs"),
    ("f60001", "test byte [rax], 1"), ("f7d8", "neg eax"), ("f7c044332211", "test eax, imm32"), ("e800000000", "call"),
    ("66e80000", "call rel16"), ("0f8400000000", "jz near"), ("74fe", "jz short"), ("c8100000", "enter"), 
    ("c20800", "ret 8"),
    ("0f05", "syscall"), ("0fa2", "cpuid"), ("0f01c1", "vmcall"), ("0fc7f0", "rdrand eax"), ("0f20d0", "mov rax, cr2"),
    ("0f22d8", "mov cr3, rax"), ("0fba2003", "bt [rax], 3"), ("660f3a0fc108", "palignr"), ("660f3800c1", "pshufb"),
    ("f20f38f1c1", "crc32"), ("c4e2f2f2c2", "andn"), ("c5f877", "vzeroupper"), ("f0480fb10f", "lock cmpxchg"),
    ("cd80", "int 0x80"), ("e680", "out imm8, al"), ("66ef", "out dx, ax"), ("6690", "xchg ax, ax"),
    ("410f1800", "prefetch"),
])  # fmt: skip
def test_lengths(code: str, text: str) -> None:
    """Each instruction has the length of its encoding."""
    assert decode(bytes.fromhex(code)) & 0xFF == len(bytes.fromhex(code)), text


def test_fields() -> None:
    """Opcode, map, ModRM, REX and prefixes are reported."""
    found = decode(bytes.fromhex("66490fc7f1"))
    assert (found >> 8 & 255, found >> 16 & 255, found >> 24 & 255, found >> 32 & 255, found >> 40) == (
        0xC7, 1, 0xF1, 0x49, 1,
    )  # fmt: skip


@pytest.mark.parametrize("code", ["06", "0f04", "62f17d287ac6", "ea", "9a", "66" * 15 + "90", "d4"])
def test_undefined(code: str) -> None:
    """What 64-bit mode does not have decodes to nothing."""
    assert decode(bytes.fromhex(code)) & 0xFF == 0
