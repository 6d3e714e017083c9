"""The gRPC services and their streams: each parses, calls the machine and converts, for one caller."""
