"""The switches of a host in this process: deterministic, and without privileges."""
