"""What numba compiles: functions over addresses and words, which know no Python object."""
