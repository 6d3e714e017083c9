"""The virtual switches of a host: the service, its settings and its names."""
