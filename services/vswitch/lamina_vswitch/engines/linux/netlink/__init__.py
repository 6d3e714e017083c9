"""Netlink requests, a kind of object a module; what to ask for is decided by others."""
