"""The virtual switches of a host: here, the service, its settings and its names."""
