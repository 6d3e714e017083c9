"""A cluster of hosts as a service: here, the service, its settings and its faults."""
