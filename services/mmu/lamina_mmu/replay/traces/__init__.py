"""A trace as it is read: bytes inflated, parsed into accesses and pages, and spooled to disk."""
