"""One packet as translation parses, tracks and rewrites it, without the table."""
