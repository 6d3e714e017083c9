"""Devices attached by a caller's stream or ring, between the engine and that caller."""
