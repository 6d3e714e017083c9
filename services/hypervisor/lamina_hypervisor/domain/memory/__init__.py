"""Guest memory: the kinds of address, the extended page table, its translations and the hold of its frames."""
