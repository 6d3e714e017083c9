"""A context of execution: what it is, what it exits for, what it counts, and which one gets a core."""
