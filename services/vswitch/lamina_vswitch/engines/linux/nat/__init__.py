"""One network that the kernel translates: its rules, its device, and what is tracked."""
