"""The switches of a host: what is defined of them, kept equal here, in the store and in the engine."""
