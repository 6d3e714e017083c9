"""Words about a stack as a whole: up, down, status, its clock, faults, traces and replay."""
