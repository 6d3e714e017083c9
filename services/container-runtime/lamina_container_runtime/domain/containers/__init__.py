"""Sandboxes and containers as records: specification, state, exit, log lines, processes."""
