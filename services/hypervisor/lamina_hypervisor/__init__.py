"""The virtual machines of one host: the service, its settings, and the hypervisor that drives an engine."""
