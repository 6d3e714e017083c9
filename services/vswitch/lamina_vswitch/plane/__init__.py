"""Frames in memory, switched in bursts: Python that keeps the flat tables and runs the compiled code."""
