"""System calls: from an exit to a function of the thread that calls, over the kernel's objects."""
