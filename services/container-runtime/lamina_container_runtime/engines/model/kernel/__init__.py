"""The container kernel: objects that system calls work on, the tables below them, and the main loop of threads."""
