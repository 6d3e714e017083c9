"""What a guest reaches by I/O: who answers a port, and the devices behind it."""
