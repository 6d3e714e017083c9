"""`./run mutate`: a room's code changed in one place at a time, and whether its tests notice."""
