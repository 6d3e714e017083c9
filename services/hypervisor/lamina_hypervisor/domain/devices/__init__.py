"""Devices of a guest and the I/O ports that they answer."""
