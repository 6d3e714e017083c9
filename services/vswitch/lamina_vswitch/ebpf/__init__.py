"""eBPF without a compiler: an assembler, loading of programs, and the program of the bypass."""
