"""What fills the TLB of the emulator, and what goes to memory as through it."""
