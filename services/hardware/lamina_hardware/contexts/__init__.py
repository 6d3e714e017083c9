"""A context between two runs: its registers, controls and interrupts as calls read and change them."""
