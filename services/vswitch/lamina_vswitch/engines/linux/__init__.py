"""The kernel of this machine as switch: here, the engine, its namespace, and what the kernel refuses."""
