"""The memory of one host: the service, its settings, and the host that drives an engine."""
