"""What a process does with its ranges: one module for each system call that Linux has for it."""
