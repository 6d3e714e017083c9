"""Page walks, compiled: from an address to a physical one or to the error code."""
