"""System calls: from their number to a function over the kernel's objects."""
