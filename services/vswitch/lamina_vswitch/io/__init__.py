"""What touches the real machine: sockets, files, devices, timers; what becomes of a frame is decided elsewhere."""
