"""What the manual calls exit qualification of an EPT violation: which access, and what the entries allow; compiled.

Source: Intel SDM vol. 3, table 28-7.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_EXECUTE,
    ACCESS_WRITE,
    FAULT_CODE,
    FAULT_IN_PAGE,
    FAULT_IN_PDPTES,
    FAULT_STAGE_ACCESS,
    FAULT_STAGE_RIGHTS,
    L_QUALIFY,
)
from lamina_hardware.io.native import Word, linked, u64, word

_3 = u64(3)
_READ, _WRITE, _FETCH = u64(1), u64(2), u64(4)
_LINEAR = u64(1 << 7)
_FINAL = u64(1 << 8)


@linked(L_QUALIFY)
def qualify(block: int) -> Word:
    """Returns the qualification of the second-stage fault in the block. Guest tables are read as if written."""
    access = word(block, FAULT_STAGE_ACCESS)
    final = word(block, FAULT_CODE) == FAULT_IN_PAGE
    if word(block, FAULT_CODE) == FAULT_IN_PDPTES:  # loads of these registers are reads, and of no linear address
        return _READ | word(block, FAULT_STAGE_RIGHTS) << _3
    if not final:
        kind = _READ | _WRITE
    elif access == ACCESS_WRITE:
        kind = _WRITE
    else:
        kind = _FETCH if access == ACCESS_EXECUTE else _READ
    found = kind | word(block, FAULT_STAGE_RIGHTS) << _3 | _LINEAR
    return found | _FINAL if final else found
