"""Resolving a fault, and whatever makes faults ahead of accesses."""
