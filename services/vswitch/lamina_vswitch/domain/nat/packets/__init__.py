"""One packet as translation reads and rewrites it; nothing here knows the table."""
