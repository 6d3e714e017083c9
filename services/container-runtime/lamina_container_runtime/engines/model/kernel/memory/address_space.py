"""The memory of a process as the kernel keeps it; the MMU keeps the mappings themselves."""

from __future__ import annotations

from lamina_container_runtime.engines.model.effects import SpaceRef


class AddressSpace:
    """One address space. `users` counts the processes and vfork children in it.

    `domain` names its coherence domain: cores run one thread of a domain at a time, because a locked instruction is not
    atomic between two of them. A fork that shares writable memory stays in the domain of its parent.
    """

    def __init__(self, space: SpaceRef, domain: str) -> None:
        self.space = space
        self.domain = domain
        self.users = 1
        self.shares_memory = False
        self.brk_start = 0
        self.brk = 0
        self.brk_mapped = 0
        self.executable = ""

    @property
    def root(self) -> int:
        """Physical address of the root table."""
        return self.space.root

    def copy(self, space: SpaceRef, domain: str) -> AddressSpace:
        """Returns the kernel's side of a fork."""
        child = AddressSpace(space, self.domain if self.shares_memory else domain)
        child.shares_memory = self.shares_memory
        child.brk_start, child.brk, child.brk_mapped = self.brk_start, self.brk, self.brk_mapped
        child.executable = self.executable
        return child
