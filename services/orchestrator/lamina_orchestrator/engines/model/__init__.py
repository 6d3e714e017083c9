"""The control plane as a function of its store, its inputs and the time, pure."""
