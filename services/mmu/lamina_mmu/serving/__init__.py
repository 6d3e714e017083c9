"""The gRPC services, one a module: each parses, drives a step of the engine, and converts."""
