"""Contexts between their runs: whatever a call reads, changes or saves of one."""
