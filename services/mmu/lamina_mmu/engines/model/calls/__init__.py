"""The calls of the engine's interface: each checks who owns what, and goes to one of the other packages."""
