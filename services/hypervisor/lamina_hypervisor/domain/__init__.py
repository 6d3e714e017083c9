"""Virtual machines as types and algorithms, pure, for every engine."""
