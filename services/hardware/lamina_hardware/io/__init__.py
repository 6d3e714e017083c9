"""Where the machine meets this one: files, sockets, threads and compiled code."""
