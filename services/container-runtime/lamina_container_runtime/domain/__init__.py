"""Images, sandboxes and containers as types and algorithms, pure, for every engine."""
