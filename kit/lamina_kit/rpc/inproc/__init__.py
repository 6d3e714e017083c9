"""gRPC inside one process: generated stubs and servicers joined without a socket."""
