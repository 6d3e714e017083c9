"""System calls on paths and descriptors."""
