"""Engines: what a core must be, and who decides what runs on it."""
