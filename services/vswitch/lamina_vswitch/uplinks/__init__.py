"""The ways out of a host: uplinks, the NICs that they drive, overlays and their tunnels."""
