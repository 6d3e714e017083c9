"""The virtual machines of one host as a service: here, the service, its settings and its faults."""
