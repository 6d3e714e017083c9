"""The system calls whose arguments are paths or descriptors."""
