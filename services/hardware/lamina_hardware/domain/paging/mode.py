"""How a processor reads its first-stage tables: the paging mode and the control bits that a walk depends on. Pure.

    mode        CR0.PG  CR4.PAE  EFER.LMA   tables             pages                      entry
    two-level   1       0        0          PD, PT             4 KiB, 4 MiB (CR4.PSE)     4 bytes
    PAE         1       1        0          PDPT, PD, PT       4 KiB, 2 MiB               8 bytes
    four-level  1       1        1          PML4 … PT          4 KiB, 2 MiB, 1 GiB        8 bytes

Source: Intel SDM vol. 3, 5.1.1 (paging modes), 5.1.3 (modifiers).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from lamina_kit.errors import InvalidArgument

CR0_WP, CR0_PG = 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_PGE = 1 << 4, 1 << 5, 1 << 7
CR4_PCIDE, CR4_SMEP, CR4_SMAP = 1 << 17, 1 << 20, 1 << 21
EFER_NXE = 1 << 11
RFLAGS_AC = 1 << 18


class PagingMode(enum.Enum):
    """Which tables there are."""

    FOUR_LEVEL = "four-level"
    TWO_LEVEL = "two-level"
    PAE = "PAE"


@dataclass(frozen=True, slots=True)
class Controls:
    """The mode, and the bits that change what a walk allows. `smap` is False where RFLAGS.AC lifts it."""

    mode: PagingMode = PagingMode.FOUR_LEVEL
    wp: bool = True
    nxe: bool = True
    smep: bool = False
    smap: bool = False
    pse: bool = True

    @property
    def has_nx(self) -> bool:
        """Whether bit 63 of an entry forbids fetches; otherwise it is reserved, or not there."""
        return self.nxe and self.mode is not PagingMode.TWO_LEVEL

    @property
    def tells_fetches(self) -> bool:
        """Whether a page fault's error code has the I/D bit. Source: Intel SDM vol. 3, 5.7."""
        return self.has_nx or self.smep

    @property
    def top_level(self) -> int:
        """Level of the root table."""
        return {PagingMode.FOUR_LEVEL: 4, PagingMode.PAE: 3, PagingMode.TWO_LEVEL: 2}[self.mode]

    @property
    def address_bits(self) -> int:
        """Bits of a linear address."""
        return 64 if self.mode is PagingMode.FOUR_LEVEL else 32


def controls_of(mode: PagingMode, cr0: int, cr4: int, efer: int, rflags: int, cpl: int) -> Controls:
    """Returns what registers say for an access at `cpl`; a register of 0 means what the mode needs (and NXE, and WP).

    Raises `InvalidArgument` `PAGING_CONTRADICTED` when the registers do not allow the mode.
    """
    wants_pae = mode is not PagingMode.TWO_LEVEL
    cr0 = cr0 or CR0_PG | CR0_WP
    cr4 = cr4 or (CR4_PAE if wants_pae else CR4_PSE)
    efer = efer or EFER_NXE
    _refuse(mode, not cr0 & CR0_PG, "CR0.PG is clear")
    _refuse(mode, bool(cr4 & CR4_PAE) is not wants_pae, f"CR4.PAE is {'clear' if wants_pae else 'set'}")
    _refuse(mode, bool(cr4 & CR4_PCIDE) and mode is not PagingMode.FOUR_LEVEL, "CR4.PCIDE is set")
    lifted = cpl < 3 and bool(rflags & RFLAGS_AC)
    return Controls(
        mode=mode,
        wp=bool(cr0 & CR0_WP),
        nxe=bool(efer & EFER_NXE),
        smep=bool(cr4 & CR4_SMEP),
        smap=bool(cr4 & CR4_SMAP) and not lifted,
        pse=bool(cr4 & CR4_PSE) or wants_pae,
    )


def _refuse(mode: PagingMode, contradicted: bool, what: str) -> None:
    if contradicted:
        raise InvalidArgument(
            f"The paging mode is {mode.value}, but {what}.",
            reason="PAGING_CONTRADICTED",
            next_step="Give the registers of a processor in that mode, or 0 for what the mode needs.",
        )
