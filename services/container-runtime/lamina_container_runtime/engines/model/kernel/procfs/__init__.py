"""/proc: the other objects of the kernel as files and texts."""
