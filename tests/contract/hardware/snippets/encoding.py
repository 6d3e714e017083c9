"""Instructions as bytes, with what they do to the flags: what the generator of programs chooses from.

Memory operands are [RDI + displacement]. RSP, RDI, R14 (turns of a loop) and R15 are no operands. A shape makes one
instruction from a stream of random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.contract.hardware.snippets.snippet import AF, CF, OF, PF, SF, STATUS, ZF

GENERAL = (0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13)
INTEGERS, DOUBLES, SINGLES = range(8), range(8, 12), range(12, 16)
"""XMM registers by what they hold: arithmetic of doubles sees nothing but doubles, so that there is one NaN only."""
RDI = 7
CONDITIONS = {
    "o": OF, "no": OF, "b": CF, "ae": CF, "z": ZF, "nz": ZF, "be": CF | ZF, "a": CF | ZF, "s": SF, "ns": SF, "p": PF,
    "np": PF, "l": SF | OF, "ge": SF | OF, "le": SF | OF | ZF, "g": SF | OF | ZF,
}  # fmt: skip
"""Conditions in the order of their codes, and the flags that they read."""
_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
_LOGIC = STATUS & ~AF


@dataclass(frozen=True, slots=True)
class Instruction:
    """Machine code and its text; flags that it reads, defines, and leaves undefined."""

    code: bytes
    text: str
    reads: int = 0
    defines: int = 0
    undefines: int = 0


Shape = Callable[[random.Random], Instruction]


def encode(
    opcode: bytes,
    reg: int,
    rm: int,
    wide: bool = False,
    prefix: bytes = b"",
    memory: int | None = None,
    byte: bool = False,
) -> bytes:
    """Returns prefix, REX, opcode and ModRM; with `memory` the operand is [RDI + memory], -128 to 127."""
    rex = 0x40 | wide << 3 | (reg >> 3) << 2 | (0 if memory is not None else rm >> 3)
    modrm = 0xC0 | (reg & 7) << 3 | rm & 7 if memory is None else 0x40 | (reg & 7) << 3 | RDI
    tail = b"" if memory is None else (memory & 0xFF).to_bytes(1, "little")
    return prefix + (bytes([rex]) if rex != 0x40 or byte else b"") + opcode + bytes([modrm]) + tail


def _place(rng: random.Random) -> int:
    return rng.randrange(-128, 104)


def _arithmetic(rng: random.Random) -> Instruction:
    """ADD, OR, ADC, SBB, AND, SUB, XOR, CMP and TEST of each size, with registers, memory and constants."""
    number = rng.randrange(8)
    name = ("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")[number]
    size = rng.choice((1, 2, 4, 8))
    prefix, low = b"\x66" if size == 2 else b"", 0 if size == 1 else 1
    one, other, place = rng.choice(GENERAL), rng.choice(GENERAL), _place(rng)
    form = rng.randrange(4)
    if form == 3:
        value = rng.randrange(256)
        code = encode(b"\x80" if size == 1 else b"\x83", number, one, size == 8, prefix, byte=True) + bytes([value])
        text = f"{name} {_NAMES[one]}:{size}, {value:#x}"
    else:
        opcode = bytes([number << 3 | low | (2 if form == 2 else 0)])
        code = encode(opcode, one, other, size == 8, prefix, place if form else None, byte=True)
        memory = f"[rdi{place:+}]"
        left, right = (_NAMES[one], memory) if form == 2 else (memory if form else _NAMES[other], _NAMES[one])
        text = f"{name} {left}, {right} ({size})"
    logic = name in ("or", "and", "xor")
    return Instruction(
        code, text, CF if name in ("adc", "sbb") else 0, _LOGIC if logic else STATUS, AF if logic else 0
    )  # fmt: skip


def _move(rng: random.Random) -> Instruction:
    """MOV of each size between registers and memory, MOVZX, MOVSX, LEA, and constants of 64 bits."""
    one, other, place = rng.choice(GENERAL), rng.choice(GENERAL), _place(rng)
    kind = rng.randrange(7)
    if kind == 0:
        value = rng.choice(
            (rng.getrandbits(64), rng.randrange(16), (1 << 64) - 1 - rng.randrange(16), 1 << rng.randrange(64))
        )
        code = bytes([0x48 | one >> 3, 0xB8 | one & 7]) + value.to_bytes(8, "little")
        return Instruction(code, f"mov {_NAMES[one]}, {value:#x}")
    size = rng.choice((1, 2, 4, 8))
    prefix, low = b"\x66" if size == 2 else b"", 0 if size == 1 else 1
    if kind in (1, 2):
        opcode = bytes([(0x88 if kind == 1 else 0x8A) | low])
        code = encode(opcode, one, 0, size == 8, prefix, place, byte=True)
        text = f"mov [rdi{place:+}], {_NAMES[one]}" if kind == 1 else f"mov {_NAMES[one]}, [rdi{place:+}]"
        return Instruction(code, f"{text} ({size})")
    if kind == 3:
        code = encode(bytes([0x88 | low]), one, other, size == 8, prefix, byte=True)
        return Instruction(code, f"mov {_NAMES[other]}, {_NAMES[one]} ({size})")
    if kind == 4:
        number = rng.choice((0xB6, 0xB7, 0xBE, 0xBF))
        code = encode(bytes([0x0F, number]), one, other, True, byte=True)
        name = "movzx" if number < 0xB8 else "movsx"
        return Instruction(code, f"{name} {_NAMES[one]}, {_NAMES[other]} ({1 if number & 1 == 0 else 2})")
    if kind == 5:
        return Instruction(encode(b"\x63", one, other, True), f"movsxd {_NAMES[one]}, {_NAMES[other]}")
    return Instruction(encode(b"\x8d", one, 0, True, memory=place), f"lea {_NAMES[one]}, [rdi{place:+}]")


def _shift(rng: random.Random) -> Instruction:
    """Shifts and rotates of 32 and 64 bits by a constant."""
    number = rng.choice((0, 1, 2, 3, 4, 5, 7))
    name = ("rol", "ror", "rcl", "rcr", "shl", "shr", "", "sar")[number]
    one, wide = rng.choice(GENERAL), rng.random() < 0.5
    count = rng.randrange(1, 64 if wide else 32)
    code = encode(b"\xc1", number, one, wide) + bytes([count])
    rotates = number < 4
    defines = CF if rotates else CF | SF | ZF | PF
    return Instruction(
        code, f"{name} {_NAMES[one]}, {count} ({8 if wide else 4})", CF if number in (2, 3) else 0,
        defines | (OF if count == 1 else 0), (0 if rotates else AF) | (0 if count == 1 else OF),
    )  # fmt: skip


def _double_shift(rng: random.Random) -> Instruction:
    """SHLD and SHRD."""
    left, one, other, wide = rng.random() < 0.5, rng.choice(GENERAL), rng.choice(GENERAL), rng.random() < 0.5
    count = rng.randrange(1, 64 if wide else 32)
    code = encode(b"\x0f\xa4" if left else b"\x0f\xac", other, one, wide) + bytes([count])
    text = f"{'shld' if left else 'shrd'} {_NAMES[one]}, {_NAMES[other]}, {count} ({8 if wide else 4})"
    once = count == 1
    return Instruction(code, text, 0, CF | SF | ZF | PF | (OF if once else 0), AF | (0 if once else OF))


def _unary(rng: random.Random) -> Instruction:
    """NOT, NEG, MUL, IMUL, INC, DEC, BSWAP and sign extensions."""
    one, wide = rng.choice(GENERAL), rng.random() < 0.5
    name = rng.choice(("not", "neg", "mul", "imul", "inc", "dec", "bswap", "cdqe", "cqo"))
    text = f"{name} {_NAMES[one]} ({8 if wide else 4})"
    if name in ("cdqe", "cqo"):
        return Instruction(b"\x48\x98" if name == "cdqe" else b"\x48\x99", name)
    if name == "bswap":
        return Instruction(bytes([0x40 | wide << 3 | one >> 3, 0x0F, 0xC8 | one & 7]), text)
    if name in ("inc", "dec"):
        return Instruction(encode(b"\xff", 0 if name == "inc" else 1, one, wide), text, 0, STATUS & ~CF)
    code = encode(b"\xf7", {"not": 2, "neg": 3, "mul": 4, "imul": 5}[name], one, wide)
    if name == "not":
        return Instruction(code, text)
    return (
        Instruction(code, text, 0, STATUS)
        if name == "neg"
        else Instruction(code, text, 0, CF | OF, STATUS & ~(CF | OF))
    )


def _two(rng: random.Random) -> Instruction:
    """IMUL, POPCNT, CRC32, XCHG, XADD, CMPXCHG, and BT, BTS, BTR, BTC with a constant."""
    one, other, wide = rng.choice(GENERAL), rng.choice(GENERAL), rng.random() < 0.5
    name = rng.choice(("imul", "popcnt", "crc32", "xchg", "xadd", "cmpxchg", "bit"))
    text = f"{name} {_NAMES[one]}, {_NAMES[other]} ({8 if wide else 4})"
    if name == "bit":
        number, bit = rng.randrange(4, 8), rng.randrange(32)
        code = encode(b"\x0f\xba", number, one, wide) + bytes([bit])
        text = f"{('bt', 'bts', 'btr', 'btc')[number - 4]} {_NAMES[one]}, {bit} ({8 if wide else 4})"
        return Instruction(code, text, 0, CF, OF | SF | AF | PF)
    if name == "imul":
        return Instruction(encode(b"\x0f\xaf", one, other, wide), text, 0, CF | OF, STATUS & ~(CF | OF))
    if name == "popcnt":
        return Instruction(encode(b"\x0f\xb8", one, other, wide, b"\xf3"), text, 0, STATUS)
    if name == "crc32":
        return Instruction(encode(b"\x0f\x38\xf1", one, other, wide, b"\xf2"), text)
    opcode = {"xchg": b"\x87", "xadd": b"\x0f\xc1", "cmpxchg": b"\x0f\xb1"}[name]
    place = _place(rng) if rng.random() < 0.5 else None
    wide = wide or name == "cmpxchg"  # of 32 bits the emulator has it wrong: docs/divergences.md
    code = encode(opcode, one, other, wide, b"", place)
    return Instruction(code, f"{text} at {place}", 0, 0 if name == "xchg" else STATUS)


def _scan(rng: random.Random) -> Instruction:
    """BSF and BSR of a register in which a bit was set before: of 0 the result is undefined."""
    one, other, bit = rng.choice(GENERAL), rng.choice(GENERAL), rng.randrange(64)
    code = encode(b"\x0f\xba", 5, other, True) + bytes([bit])
    forward = rng.random() < 0.5
    code += encode(b"\x0f\xbc" if forward else b"\x0f\xbd", one, other, True)
    text = f"bts {_NAMES[other]}, {bit}; {'bsf' if forward else 'bsr'} {_NAMES[one]}, {_NAMES[other]}"
    return Instruction(code, text, 0, ZF, STATUS & ~ZF)


def _condition(rng: random.Random) -> Instruction:
    """SETcc and CMOVcc."""
    number, (name, reads) = rng.choice(tuple(enumerate(CONDITIONS.items())))
    one, other = rng.choice(GENERAL), rng.choice(GENERAL)
    if rng.random() < 0.5:
        return Instruction(encode(bytes([0x0F, 0x90 | number]), 0, one, byte=True), f"set{name} {_NAMES[one]}", reads)
    code = encode(bytes([0x0F, 0x40 | number]), one, other, rng.random() < 0.5)
    return Instruction(code, f"cmov{name} {_NAMES[one]}, {_NAMES[other]}", reads)


def _string(rng: random.Random) -> Instruction:
    """A short REP STOS or REP MOVS within the data."""
    size, count, start = rng.choice((0, 1)), rng.randrange(0, 9), rng.randrange(-128, 0)
    moves = rng.random() < 0.5
    code = b"\x57\x56\x51" + encode(b"\x8d", 7, 0, True, memory=start)  # push rdi, rsi, rcx; lea rdi, [rdi+start]
    code += b"\x48\x8d\x77" + bytes([rng.randrange(40)])  # lea rsi, [rdi+n]
    code += b"\xb9" + count.to_bytes(4, "little") + b"\xf3\x48" + bytes([(0xA4 if moves else 0xAA) | size])
    return Instruction(code + b"\x59\x5e\x5f", f"rep {'movs' if moves else 'stos'}{'q' if size else 'b'} of {count}")


def _packed(rng: random.Random) -> Instruction:
    """Packed integers: arithmetic, comparison, packing, shuffling."""
    one, other = rng.choice(INTEGERS), rng.choice(INTEGERS)
    if rng.random() < 0.2:
        (opcode, number), count = rng.choice(_PACKED_SHIFTS), rng.randrange(70)
        code = encode(bytes([0x0F, opcode]), number, one, prefix=b"\x66") + bytes([count])
        return Instruction(code, f"packed shift {opcode:#x}/{number} xmm{one}, {count}")
    if rng.random() < 0.15:
        code = encode(b"\x0f\x70", one, other, prefix=b"\x66") + bytes([rng.randrange(256)])
        return Instruction(code, f"pshufd xmm{one}, xmm{other}, {code[-1]:#x}")
    opcodes = rng.choice(_PACKED)
    place = _place(rng) & ~15 if rng.random() < 0.2 else None
    code = encode(opcodes, one, other, prefix=b"\x66", memory=place)
    return Instruction(code, f"packed {opcodes.hex()} xmm{one}, xmm{other} at {place}")


_PACKED_SHIFTS = (
    (0x71, 2), (0x71, 4), (0x71, 6), (0x72, 2), (0x72, 4), (0x72, 6), (0x73, 2), (0x73, 3), (0x73, 6), (0x73, 7),
)  # fmt: skip
_PACKED = (
    # paddb paddw paddd paddq psubb psubw psubd psubq pand pandn por pxor, then comparisons
    *(bytes([0x0F, number]) for number in bytes.fromhex("fcfdfed4f8f9fafbdbdfebef747576646566")),
    # punpcklbw punpckhbw punpcklqdq packsswb packuswb pmullw pmulhw pmuludq pmaddwd pavgb pminub pmaxsw psadbw
    *(bytes([0x0F, number]) for number in bytes.fromhex("60686c6367d5e5f4f5e0daeef6dce9")),
    # (not phaddw, which the emulator has wrong: docs/divergences.md) pshufb pabsd pmulld pmaxud pminsd pmovzxbw
    *(bytes([0x0F, 0x38, number]) for number in bytes.fromhex("001e403f3930")),
)


def _across(rng: random.Random) -> Instruction:
    """MOVQ between general and XMM registers, MOVDQU with memory, PTEST, PMOVMSKB."""
    one, xmm, place = rng.choice(GENERAL), rng.choice(INTEGERS), _place(rng)
    kind = rng.randrange(6)
    if kind == 0:
        return Instruction(encode(b"\x0f\x6e", xmm, one, True, b"\x66"), f"movq xmm{xmm}, {_NAMES[one]}")
    if kind == 1:
        source = rng.randrange(16)
        return Instruction(encode(b"\x0f\x7e", source, one, True, b"\x66"), f"movq {_NAMES[one]}, xmm{source}")
    if kind == 2:
        return Instruction(
            encode(b"\x0f\x6f", xmm, 0, prefix=b"\xf3", memory=place), f"movdqu xmm{xmm}, [rdi{place:+}]"
        )
    if kind == 3:
        source = rng.randrange(16)
        return Instruction(
            encode(b"\x0f\x7f", source, 0, prefix=b"\xf3", memory=place), f"movdqu [rdi{place:+}], xmm{source}"
        )
    if kind == 4:
        other = rng.choice(INTEGERS)
        return Instruction(
            encode(b"\x0f\x38\x17", xmm, other, prefix=b"\x66"), f"ptest xmm{xmm}, xmm{other}", 0, STATUS
        )
    return Instruction(encode(b"\x0f\xd7", one, xmm, prefix=b"\x66"), f"pmovmskb {_NAMES[one]}, xmm{xmm}")


def _floating(rng: random.Random) -> Instruction:
    """Doubles and singles: conversions, arithmetic, comparison."""
    double = rng.random() < 0.6
    bank, prefix = (DOUBLES, b"\xf2") if double else (SINGLES, b"\xf3")
    one, other, general = rng.choice(bank), rng.choice(bank), rng.choice(GENERAL)
    kind = rng.randrange(8)
    name = "sd" if double else "ss"
    if kind < 2:
        wide = rng.random() < 0.5
        return Instruction(encode(b"\x0f\x2a", one, general, wide, prefix), f"cvtsi2{name} xmm{one}, {_NAMES[general]}")
    if kind == 2:
        code = encode(rng.choice((b"\x0f\x2c", b"\x0f\x2d")), general, one, rng.random() < 0.5, prefix)
        return Instruction(code, f"cvt{name}2si {_NAMES[general]}, xmm{one}")
    if kind == 3:
        code = encode(b"\x0f\x2e", one, other, prefix=b"\x66" if double else b"")
        return Instruction(code, f"ucomi{name} xmm{one}, xmm{other}", 0, STATUS)
    opcode = rng.choice((0x58, 0x59, 0x5C, 0x5E, 0x5D, 0x5F, 0x51))
    if rng.random() < 0.3:  # all elements
        prefix, name = (b"\x66", "pd") if double else (b"", "ps")
    return Instruction(
        encode(bytes([0x0F, opcode]), one, other, prefix=prefix), f"float {opcode:#x} {name} xmm{one}, xmm{other}"
    )


SHAPES: tuple[tuple[Shape, int], ...] = (
    (_arithmetic, 10), (_move, 7), (_shift, 4), (_double_shift, 1), (_unary, 4), (_two, 4), (_scan, 1), (_condition, 4),
    (_string, 1), (_packed, 5), (_across, 4), (_floating, 4),
)  # fmt: skip
"""What is chosen from, with weights."""
