"""Offloads between devices and the switch: checksums and segments checked at ingress, finished at egress."""
