"""Ports whose other end is in this process: routers, tunnels, outsides, and their timers."""
