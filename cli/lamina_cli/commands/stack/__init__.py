"""Words about a stack as a whole: up, down, its clock, faults and traces, and this machine."""
