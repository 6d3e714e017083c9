"""What touches the real machine: compiled cores, KVM, files, sockets, threads."""
