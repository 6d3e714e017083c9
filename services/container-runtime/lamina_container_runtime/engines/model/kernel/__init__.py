"""The container kernel: objects that system calls work on, and the main loop that runs threads."""
