"""The memory of a replayed policy, and how compiled code reaches it."""
