"""Hardware as types and algorithms, pure: what is true of it whatever executes it."""
