"""What touches the real machine: the kernel's files and calls, media of swap, plugins, threads."""
