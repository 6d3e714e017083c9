"""Uplinks of a host at work: the NICs that they drive, overlays and their tunnels."""
