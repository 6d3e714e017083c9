"""Where an instruction accesses memory, by its bytes."""

from __future__ import annotations

import itertools

import pytest

from lamina_hardware.io.kvm.operands import Registers, addresses

GENERAL = tuple(0x1000 * (number + 1) for number in range(16))
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = GENERAL
RIP, FS, GS = 0x40_0000, 0x7_0000_0000, 0x9_0000_0000


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("488907", [RDI]),  # mov [rdi], rax
        ("48890b", [RBX]),  # mov [rbx], rcx
        ("488b4608", [RSI + 8]),  # mov rax, [rsi+8]
        ("488b46f8", [RSI - 8]),  # mov rax, [rsi-8]
        ("488b8600010000", [RSI + 0x100]),  # mov rax, [rsi+0x100]
        ("498b4500", [R13]),  # mov rax, [r13]
        ("498b0424", [R12]),  # mov rax, [r12]
        ("4a8b04b8", [RAX + 4 * R15]),  # mov rax, [rax+r15*4]
        ("488b0424", [RSP]),  # mov rax, [rsp]
        ("488b04250010c07f", [0x7FC0_1000]),  # mov rax, [0x7fc01000]
        ("488b05f0000000", [RIP + 7 + 0xF0]),  # mov rax, [rip+0xf0]
        ("8035f000000001", [RIP + 7 + 0xF0]),  # xor byte [rip+0xf0], 1
        ("c705f000000001000000", [RIP + 10 + 0xF0]),  # mov dword [rip+0xf0], 1
        ("66c705f00000000100", [RIP + 9 + 0xF0]),  # mov word [rip+0xf0], 1
        ("f605f000000001", [RIP + 7 + 0xF0]),  # test byte [rip+0xf0], 1
        ("f71df0000000", [RIP + 6 + 0xF0]),  # neg dword [rip+0xf0]
        ("64488b042500000000", [FS]),  # mov rax, fs:[0]
        ("65488b042510000000", [GS + 0x10]),  # mov rax, gs:[0x10]
        ("678b07", [RDI]),  # mov eax, [edi]
        ("48a10000000001000000", [0x1_0000_0000]),  # mov rax, [moffs]
        ("f3aa", [RSI, RDI]),  # rep stosb; RSI is looked at too
        ("a4", [RSI, RDI]),  # movsb
        ("d7", [RBX + (RAX & 0xFF)]),  # xlat
        ("50", [RSP - 8, RSP]),  # push rax
        ("c3", [RSP - 8, RSP]),  # ret
        ("c9", [RBP, RSP]),  # leave
        ("ff37", [RDI, RSP - 8, RSP]),  # push [rdi]
        ("480fb607", [RDI]),  # movzx rax, byte [rdi]
        ("f30f6f07", [RDI]),  # movdqu xmm0, [rdi]
        ("660f3a0f07 01", [RDI]),  # palignr xmm0, [rdi], 1
        ("660f380007", [RDI]),  # pshufb xmm0, [rdi]
        ("c5fe6f07", [RDI]),  # vmovdqu ymm0, [rdi]
        ("c4c17e6f00", [R8]),  # vmovdqu ymm0, [r8]
        ("48ffc3", [RSP - 8, RSP]),  # inc rbx, which has the opcode of a push
        ("4889d8", []),  # mov rax, rbx
        ("488d07", []),  # lea rax, [rdi]
        ("90", []),  # nop
        ("7405", []),  # jz
        ("0f8405000000", []),  # jz, long
        ("", []),  # nothing
    ],
)
def test_operands(code: str, wanted: list[int]) -> None:
    """Each addressing form, segment, map and immediate."""
    assert addresses(bytes.fromhex(code), Registers(GENERAL, RIP, FS, GS)) == wanted


def test_any_bytes_have_an_answer() -> None:
    """Code comes from the guest: whatever it is, there are a few addresses of 64 bits."""
    for first, second in itertools.product(range(256), (0x00, 0x04, 0x05, 0x0F, 0x3A, 0x44, 0x84, 0xC0, 0xC4, 0xFF)):
        for rest in (b"", b"\xff" * 12, b"\x25" * 12):
            found = addresses(bytes([first, second]) + rest, Registers(GENERAL, RIP, FS, GS))
            assert len(found) <= 3 and all(0 <= address < 1 << 64 for address in found)
