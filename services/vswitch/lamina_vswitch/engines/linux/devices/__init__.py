"""Ports that are kernel devices: frames between two of them never come to this process."""
