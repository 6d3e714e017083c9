"""The engine's whole state, and the indivisible changes of it that operations are made of."""
