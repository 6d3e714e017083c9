"""What numba compiles: functions over addresses and words, which call each other and nothing else."""
