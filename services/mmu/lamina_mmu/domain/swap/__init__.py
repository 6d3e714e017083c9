"""Swap: areas and their slots, checksums of pages, transfers to and from disks."""
