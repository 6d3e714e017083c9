"""Switches of a host at work: one catalog kept equal in memory, in the store and in the engine."""
