"""Sockets, which users of the stack call: a module for each protocol."""
