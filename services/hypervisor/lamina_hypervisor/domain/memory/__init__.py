"""Guest memory: kinds of address, the extended page table (EPT), translation, the hold on frames."""
