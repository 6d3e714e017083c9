"""The compiled page walker: what a core does when an address is not in its TLB.

One stage for a process (guest virtual → physical), two for a virtual machine (guest virtual → guest physical through
the guest's tables, each guest physical address → physical through the EPT). Every table and leaf address is checked
against the size of RAM before it is used, so no guest can reach anything else, whatever it writes into its tables.

    va ──┬─ PML4[39–47] ─ PDPT[30–38] ─ PD[21–29] ─ PT[12–20] ─ page      an entry of stage one holds a guest physical
         │     │              │            │           │         │        address; with an EPT each arrow first goes
         │    EPT            EPT          EPT         EPT       EPT       through the four levels of the second stage

A and D are set as the hardware does, by compare-and-swap: A in every entry that the walk uses, D in the leaf of a
write. An entry that changes under the walk is read again. The right to write is withheld until D is set, so that the
first store comes back here. Other paging modes are in `walks/legacy.py`, what all walks share in `walks/steps.py`.

An address beyond RAM counts as a reserved bit of its entry: this machine's physical addresses end where its RAM does.

Source: Intel SDM vol. 3, 5.5 (four-level paging), 5.8 (accessed and dirty flags).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_WRITE,
    ENV,
    EPTP,
    FAULT,
    FAULT_CANONICAL,
    FAULT_VA,
    L_WALK,
    RAM_BASE,
    RAM_SIZE,
    WALK_LEAF,
    WALK_READS,
    WALK_SECOND_READS,
    WALK_SECOND_SHIFT,
    WALK_SHIFT,
)
from lamina_hardware.io.emulator.walks.legacy import walk_legacy
from lamina_hardware.io.emulator.walks.steps import (
    CODE_P,
    CODE_R,
    EFER_LMA,
    EFER_NXE,
    NO_EFFECT,
    allowed_rights,
    fault_code,
    page_fault,
    reach,
    refused,
    set_bits,
    table_page,
)
from lamina_hardware.io.native import Word, cas64, linked, load64, put, u64, word

_0, _1, _3, _9, _12, _39, _63 = (u64(n) for n in (0, 1, 3, 9, 12, 39, 63))
_INDEX = u64(511 << 3)
_PAGE, _OFFSET = u64(4096), u64(4095)
_FRAME = u64(0x000F_FFFF_FFFF_F000)
_P, _RW, _US, _A, _D, _PS, _G = (u64(1 << bit) for bit in (0, 1, 2, 5, 6, 7, 8))
_NX = u64(1 << 63)
_PAT_LARGE = _PAGE
_CANONICAL_TOP = u64(0x1_FFFF)


@linked(L_WALK)
def walk(block: int, cr3: int, va: int, access: int, user: int, cr0: int, cr4: int, effect: int) -> Word:
    """Translates `va` for one access; returns FAULT_NONE with WALK_PA and WALK_RIGHTS in the block, or the fault.

    `access` is ACCESS_…; `user` is 1 at CPL 3; `cr4` has SMAP already taken out when RFLAGS.AC allows; `effect` is
    SET_BITS, or NO_EFFECT to look without touching A and D. EFER.NXE comes from the register file.
    """
    put(block, WALK_READS, _0)
    put(block, WALK_SECOND_READS, _0)
    efer = load64(word(block, ENV) + at.EFER)
    if (efer & EFER_LMA) == _0:
        return walk_legacy(block, cr3, va, access, user, cr0, cr4, effect)
    top = va >> u64(47)
    if top != _0 and top != _CANONICAL_TOP:
        put(block, FAULT, FAULT_CANONICAL)
        put(block, FAULT_VA, va)
        return FAULT_CANONICAL
    forbidden = _0 if (efer & EFER_NXE) != _0 else _NX
    ram = word(block, RAM_BASE)
    # With a second stage the first knows no end of RAM: its addresses are guest physical.
    last = word(block, RAM_SIZE) - _PAGE if word(block, EPTP) == _0 else _FRAME
    table, rights, shift, reads = cr3 & _FRAME, _RW | _US, _39, _0
    if table > last:
        return page_fault(block, va, fault_code(access, user, cr4, efer) | CODE_P | CODE_R)
    while True:
        entry_gpa = table + ((va >> (shift - _3)) & _INDEX)
        place = table_page(block, entry_gpa, va, effect)
        if place == _0:
            return word(block, FAULT)
        entry_pa = (place - _1) | (entry_gpa & _OFFSET)
        entry = load64(ram + entry_pa)
        reads += _1
        put(block, WALK_READS, reads)
        if (entry & _P) == _0:
            return page_fault(block, va, fault_code(access, user, cr4, efer))
        large = (entry & _PS) != _0 and shift != _12
        leaf = large or shift == _12
        mask = (_1 << shift) - _1
        target = entry & _FRAME
        reserved = entry & forbidden
        if large:
            reserved |= (entry & _PS) if shift == _39 else (target & mask & ~_PAT_LARGE)
        if leaf:
            target = (target & ~mask) | (va & mask & ~_OFFSET)
        if reserved != _0 or target > last:
            return page_fault(block, va, fault_code(access, user, cr4, efer) | CODE_P | CODE_R)
        rights = (rights & entry & (_RW | _US)) | ((rights | entry) & _NX)
        if leaf and refused(rights, access, user, cr0, cr4) != _0:
            return page_fault(block, va, fault_code(access, user, cr4, efer) | CODE_P)
        wanted = entry | _A
        if leaf and access == ACCESS_WRITE:
            wanted |= _D
        if effect != NO_EFFECT and wanted != entry:
            if cas64(ram + entry_pa, entry, wanted) != entry:
                # Everything is looked up anew: what else changed may lie above.
                table, rights, shift = cr3 & _FRAME, _RW | _US, _39
                continue
            set_bits(block, entry_pa, ((wanted ^ entry) >> u64(5)) & _1, ((wanted ^ entry) >> u64(6)) & _1)
        if leaf:
            break
        table = target
        shift -= _9
    put(block, WALK_SHIFT, shift)
    put(block, WALK_SECOND_SHIFT, _63)
    put(block, WALK_LEAF, (rights & (_RW | _US)) | (entry & _G))
    return reach(block, va, target, allowed_rights(rights, wanted, user, cr0), access << _1 | effect)
