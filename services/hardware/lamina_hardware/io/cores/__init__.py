"""Which cores a host has, and when each runs: the same for every kind of core."""
