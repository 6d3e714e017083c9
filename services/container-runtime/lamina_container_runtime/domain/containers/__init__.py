"""A sandbox and a container as records: what was asked for, the states they go through, what is told of them."""
