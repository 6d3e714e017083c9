"""Instructions that the core executes in place of the emulator, and the exits that they cause."""
