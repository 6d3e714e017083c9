"""Ports that are devices of the kernel: frames between two of them never come here."""
