"""`./run mutate`: one-place changes of a room's code, and whether its tests notice."""
