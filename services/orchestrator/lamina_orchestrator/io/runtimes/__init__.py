"""Container runtimes of nodes: the port, its client, who connects, and the stream of each node."""
