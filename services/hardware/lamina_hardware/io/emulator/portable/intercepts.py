"""Which instructions the portable core stops in front of: the emulator's intercepts, found by decoding; compiled.

The codes are those that the walker core's emulator gives, so both cores go on in `intercepts.py`.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.code.decoder import PREFIX_F3
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import CONTROLS, ENV, MSR_DEFAULT, PAGING_HIDDEN
from lamina_hardware.io.emulator.state.exit_controls import setting, traps
from lamina_hardware.io.emulator.state.exit_table import FLAG_CR3_WRITES, T_CR_READS, T_FLAGS, T_MSR_MAP
from lamina_hardware.io.emulator.state.mode import in_pae
from lamina_hardware.io.native import Word, compiled, load8, load32, u64, word

_0, _1, _2, _3, _4, _5, _6, _7, _8, _9 = (u64(n) for n in range(10))
_12 = u64(12)
_BYTE = u64(0xFF)
_SPAN = u64(8192)
_HIGH, _AMD = u64(0xC000_0000), u64(0xC001_0000)


@compiled("uint64(uint64)")
def may_be_handed(found: int) -> Word:
    """Returns whether an instruction is one that a core can hand over, whatever the controls say."""
    opcode = (found >> _8) & _BYTE
    table = (found >> u64(16)) & _BYTE
    if table == _0:
        return _1 if opcode == u64(0x90) and (found >> u64(40)) & PREFIX_F3 != _0 else _0
    if table != _1:
        return _0
    if opcode >= u64(0x20) and opcode <= u64(0x23):
        return _1
    return _1 if opcode <= _1 or opcode in (_6, _8, _9) or opcode == u64(0x33) else _0


@compiled("uint64(uint64, uint64)")
def _group(block: int, found: int) -> Word:
    """Returns the code for 0F 00 and 0F 01, 0 when the emulator does the instruction."""
    modrm = (found >> u64(24)) & _BYTE
    kind = (modrm >> _3) & _7
    tables = traps(block, _12, _0) != _0
    if (found >> _8) & _BYTE == _0:
        code = at.VMEXIT_TABLE + (kind + _2 if kind < _2 else kind + _4)
        return code if kind < _4 and tables else _0
    if kind == _4:
        return at.VMEXIT_CR_READ if setting(block, T_CR_READS) & _1 != _0 else _0
    if kind == _6:
        return at.VMEXIT_CR_WRITE
    if modrm >= u64(0xC0):
        return _0
    if kind == _7:
        return at.VMEXIT_INVLPG if traps(block, _5, _0) != _0 else _0
    if kind < _4 and tables:
        return at.VMEXIT_TABLE + ((kind ^ _1) if kind < _2 else (kind ^ _1) + _2)
    return _0


@compiled("uint64(uint64, uint64)")
def handed_code(block: int, found: int) -> Word:
    """Returns the code with which this instruction is handed over now, 0 when the emulator does it."""
    env = word(block, ENV)
    user = load32(env + at.HFLAGS) & at.HF_CPL != _0
    opcode = (found >> _8) & _BYTE
    table = (found >> u64(16)) & _BYTE
    if table == _0:
        return at.VMEXIT_PAUSE if traps(block, _6, _0) != _0 else _0
    if opcode == u64(0x33):
        return at.VMEXIT_RDPMC
    code = _0
    if opcode <= _1:
        code = _group(block, found)
        kind = (found >> u64(27)) & _7
        stores = kind < _2 or (opcode == _1 and kind == _4)
        return code if not user or stores else _0
    if user:
        return _0
    if opcode == _6:
        return at.VMEXIT_CR_WRITE
    if opcode in (_8, _9):
        return at.VMEXIT_WBINVD if traps(block, _9, _0) != _0 else _0
    number = ((found >> u64(27)) & _7) | ((found >> u64(34)) & _1) << _3
    if opcode == u64(0x21) or opcode == u64(0x23):
        return (at.VMEXIT_DR_READ if opcode == u64(0x21) else at.VMEXIT_DR_WRITE) + number
    if opcode == u64(0x20):
        wanted = (setting(block, T_CR_READS) | u64(1 << 8) | word(block, PAGING_HIDDEN)) >> number
        return at.VMEXIT_CR_READ + number if wanted & _1 != _0 else _0
    writes = u64(1 << 0 | 1 << 4 | 1 << 8)
    if setting(block, T_FLAGS) & FLAG_CR3_WRITES != _0 or in_pae(env) != _0:
        writes |= _8
    return at.VMEXIT_CR_WRITE + number if (writes >> number) & _1 != _0 else _0


@compiled("uint64(uint64, uint64, uint64)")
def emulator_answers(block: int, number: int, writes: int) -> Word:
    """Returns whether RDMSR or WRMSR of a register is left to the emulator."""
    if number < _SPAN:
        place = number
    elif number >= _HIGH and number < _HIGH + _SPAN:
        place = number - _HIGH + _SPAN
    elif number >= _AMD and number < _AMD + _SPAN:
        place = number - _AMD + _SPAN + _SPAN
    else:
        return _0
    bits = word(block, MSR_DEFAULT) if word(block, CONTROLS) == _0 else setting(block, T_MSR_MAP)
    place = place * _2 + writes
    return ((load8(bits + (place >> _3)) >> (place & _7)) & _1) ^ _1
