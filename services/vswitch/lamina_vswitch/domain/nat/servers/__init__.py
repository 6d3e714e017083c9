"""Virtual servers: addresses that stand for several backends, and which one a flow gets."""
