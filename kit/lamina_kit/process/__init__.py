"""One service as a process: its flags, lock and clock, and its life from start to stop and through reboots."""
