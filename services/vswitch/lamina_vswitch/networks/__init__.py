"""The networks of a host: their definitions, addresses and names, and each one at work."""
