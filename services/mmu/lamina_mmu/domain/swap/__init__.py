"""Swap: areas of slots, their checksums, and transfers to disks."""
