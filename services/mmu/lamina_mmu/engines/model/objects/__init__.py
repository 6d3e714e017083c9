"""Memory objects: their content, and the suppliers that have the bytes behind it."""
