"""Emulated cores: a run from the registers that are loaded to the exit that ends it."""
