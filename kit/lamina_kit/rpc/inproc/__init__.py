"""gRPC inside one process: what makes generated code run without a socket."""
