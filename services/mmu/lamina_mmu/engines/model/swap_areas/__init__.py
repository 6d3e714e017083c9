"""Swap areas as wholes: made, checked, drained, and the settings of swapping."""
