"""Cores that execute by emulation, compiled: one run from loading registers to its exit."""
