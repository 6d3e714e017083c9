"""Containers run by a kernel of our own on contexts and memory of the layers below, pure."""
