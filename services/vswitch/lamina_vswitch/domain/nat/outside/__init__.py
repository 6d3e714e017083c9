"""The outside of a network as an address or a kernel: packets leave it rewritten, or as they are."""
