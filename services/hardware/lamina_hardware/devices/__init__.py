"""Devices in the host: whatever ties a model of one to memory, drivers, clock and files."""
