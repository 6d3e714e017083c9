"""The container runtimes of nodes: the port, its client over gRPC, connecting and watching them."""
