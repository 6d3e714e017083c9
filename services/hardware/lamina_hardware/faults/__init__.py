"""Faults that a plan can ask for: what breaks in devices, disks, NICs and the host, and for how long."""
