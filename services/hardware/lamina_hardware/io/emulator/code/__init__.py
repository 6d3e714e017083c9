"""Machine code of a guest, decoded: lengths, prefixes, operands."""
