"""Requests to the kernel about devices: one kind of object a module, and no policy."""
