"""Memory groups of the model engine: limits, what goes beyond them, and their views."""
