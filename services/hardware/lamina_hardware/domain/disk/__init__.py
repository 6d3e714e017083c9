"""A disk: its content, cache, queue, and the groups that share it."""
