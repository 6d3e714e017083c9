"""VM exits: why a vCPU left its core, what is counted of exits and time slices."""
