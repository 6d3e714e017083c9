"""Replays of a recorded trace: what is asked, the passes over it, curves and results."""
