"""Whole swap areas: added, checked, drained, removed, and the settings of swapping."""
