"""Nodes: links to their runtimes, pods bound to them, and the workers of those pods."""
