"""Segments cut and merged as network cards do: what only saves work and changes nothing on the wire."""
