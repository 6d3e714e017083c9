"""The memory of one host as a service: entry point, configuration, and the shell that drives an engine."""
