"""A cluster of hosts: the service, its settings and its faults."""
