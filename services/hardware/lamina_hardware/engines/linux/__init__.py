"""The engine that tells of the real machine: what differs from the model engine."""
