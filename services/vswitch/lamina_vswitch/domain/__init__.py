"""Switches and networks as types and algorithms: no clock, no chance, no I/O; here, what all of that uses."""
