"""The gRPC services: a method parses, calls and converts; what it does is elsewhere."""
