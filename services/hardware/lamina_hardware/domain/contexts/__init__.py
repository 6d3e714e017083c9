"""Contexts: what one is, what it exits for and counts, and who gets a core."""
