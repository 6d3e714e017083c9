"""Devices at work in a host: a device of the domain joined to memory, its driver, the clock and files."""
