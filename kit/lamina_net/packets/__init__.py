"""Packet formats: a module parses and builds one header, and refuses what is malformed."""
