"""Instructions that a core does instead of the emulator, and the record if they exit."""
