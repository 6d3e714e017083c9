"""One switch as a kernel bridge with TAPs, and how a frame crosses it."""
