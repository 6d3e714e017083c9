"""eBPF without a compiler: an assembler, programs in the kernel, and the code of the bypass."""
