"""The engine whose machine is modelled: contexts, run groups and the arbiter of cores, pure."""
