"""Calls that stay open, one module each: what the peer says goes to the engine, what the engine asks goes out."""
