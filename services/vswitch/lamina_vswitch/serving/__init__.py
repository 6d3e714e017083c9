"""The gRPC services, one a module: each parses, calls and converts."""
