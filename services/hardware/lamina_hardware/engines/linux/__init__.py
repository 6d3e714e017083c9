"""The engine whose host is the real one: what differs from the model engine."""
