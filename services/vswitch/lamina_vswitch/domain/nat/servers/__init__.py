"""Virtual servers: an address for several backends, and which backend a flow gets."""
