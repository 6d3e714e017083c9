"""The hypervisor's side of one hold: grants and revocations of a VM's pages, in the order of the stream. Pure.

    ours → MMU    Want(sequence, gpa, access)      Acknowledge(revocation, bits)      Ages(sequence, bits)
    MMU → ours    Grant · Refusal                  Revocation                         Age

Messages of the MMU are numbered by their position on one stream and are handled in that order. A grant that needs a
table which is not there yet waits; if a revocation of its page arrives meanwhile, the grant is older and void: it is
forgotten, and the vCPU, when it runs, asks again. Handlers edit this VM's table and nothing else: they are leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from lamina_hypervisor.domain.memory.addresses import Frame, Gpa
from lamina_hypervisor.domain.memory.ept import Ept, PageBits
from lamina_kit.errors import Internal


@dataclass(frozen=True)
class Opened:
    """The hold is open."""


@dataclass(frozen=True)
class Granted:
    """A page is granted; `sequence` is the want's."""

    sequence: int
    gpa: Gpa
    frame: Frame
    writable: bool
    executable: bool


@dataclass(frozen=True)
class Refused:
    """A page is refused, and why, in UPPER_SNAKE."""

    sequence: int
    reason: str


@dataclass(frozen=True)
class Revocation:
    """Pages, or the right to write them, are taken back."""

    revocation: int
    pages: tuple[Gpa, ...]
    write_only: bool


@dataclass(frozen=True)
class Age:
    """The accessed bits of pages are asked for."""

    sequence: int
    pages: tuple[Gpa, ...]


HoldMessage: TypeAlias = Opened | Granted | Refused | Revocation | Age


class Holder:
    """One VM's hold."""

    def __init__(self, ept: Ept) -> None:
        self.ept = ept
        self._position = 0
        self._waiting: dict[Gpa, Granted] = {}
        self.voided = 0

    @property
    def waiting(self) -> int:
        """Number of grants that wait for a table."""
        return len(self._waiting)

    def granted(self, position: int, grant: Granted) -> bool:
        """Takes a grant; returns whether it is installed (otherwise it waits for `tables_lacking` tables)."""
        self._advance(position)
        if self.ept.tables_lacking(grant.gpa):
            self._waiting[grant.gpa] = grant
            return False
        self._install(grant)
        return True

    def tables_lacking(self) -> int:
        """Returns how many tables the first grant that waits needs; 0 when none waits."""
        for gpa in sorted(self._waiting):
            return self.ept.tables_lacking(gpa)
        return 0

    def settle(self, tables: Iterable[Frame]) -> int:
        """Takes new tables and installs the grants that they suffice for; returns how many."""
        self.ept.add_tables(tables)
        installed = 0
        for gpa in sorted(self._waiting):
            if self.ept.tables_lacking(gpa):
                break
            self._install(self._waiting.pop(gpa))
            installed += 1
        return installed

    def passed(self, position: int) -> None:
        """Notes a message that changes no page: the opening, a refusal."""
        self._advance(position)

    def revoked(self, position: int, pages: Iterable[Gpa], *, write_only: bool) -> tuple[PageBits, ...]:
        """Takes pages, or their right to be written, out of the table, and voids grants of them that wait.

        Returns the bits of the pages that were held, by address.
        """
        self._advance(position)
        bits = []
        for gpa in sorted(set(pages)):
            if self._waiting.pop(gpa, None) is not None:
                self.voided += 1
            taken = self.ept.revoke(gpa, write_only=write_only)
            if taken is not None:
                bits.append(taken)
        return tuple(bits)

    def aged(self, position: int, pages: Iterable[Gpa]) -> tuple[PageBits, ...]:
        """Returns the bits of those pages that are held, by address, and clears the accessed ones."""
        self._advance(position)
        return tuple(self.ept.take_ages(pages))

    def _install(self, grant: Granted) -> None:
        self.ept.install(grant.gpa, grant.frame, writable=grant.writable, executable=grant.executable)

    def _advance(self, position: int) -> None:
        """Wants positions without gaps: a gap would hide a revocation."""
        if position != self._position + 1:
            raise Internal(
                f"The memory layer's message {position} follows message {self._position}.",
                reason="HOLD_OUT_OF_ORDER",
                next_step="A message of the hold stream was lost; stop the VM.",
            )
        self._position = position
