"""The router of a network: from frames to packets, its ways and its own services."""
