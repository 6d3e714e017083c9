"""Memory as types and algorithms, pure: what engines, services and replays have in common."""
