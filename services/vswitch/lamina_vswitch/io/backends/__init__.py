"""Devices at ports in this process: each is a sink for frames, and reads what comes in."""
