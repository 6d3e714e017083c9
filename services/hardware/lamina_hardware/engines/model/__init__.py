"""The model engine: contexts, run groups and arbiter as one, pure."""
