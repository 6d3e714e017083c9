"""Callbacks of the emulator that every emulated core needs: blocks, page walks, breakpoints."""
