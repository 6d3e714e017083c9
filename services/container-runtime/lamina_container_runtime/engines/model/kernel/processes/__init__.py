"""Processes and threads: how they begin, run, are signalled and end, and their PID namespaces."""
