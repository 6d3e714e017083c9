"""Page walks, compiled: from a virtual address to a physical one or to an error code."""
