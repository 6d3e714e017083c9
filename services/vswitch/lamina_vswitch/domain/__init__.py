"""Switches and networks as types and algorithms, pure."""
