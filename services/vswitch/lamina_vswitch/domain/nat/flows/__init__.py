"""The connection table: its flows, the ports they take, and packets rewritten by them."""
