"""What the emulator calls while it runs: callbacks that every emulated core needs."""
