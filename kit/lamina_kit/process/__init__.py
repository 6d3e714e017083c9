"""One service as a process: its flags, lock and clock, its start, its stop, and its reboots."""
