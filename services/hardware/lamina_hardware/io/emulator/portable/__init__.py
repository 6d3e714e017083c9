"""What only the core without undocumented internals of the emulator needs."""
