"""Definitions of switches, groups and ports as users make them, and why one is refused."""
