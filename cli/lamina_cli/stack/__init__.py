"""Stacks as processes: layers composed, started, supervised, stopped, and recorded."""
