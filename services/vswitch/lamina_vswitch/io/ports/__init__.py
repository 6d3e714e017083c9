"""Ports whose other end is in this process: routers, tunnels and outsides."""
