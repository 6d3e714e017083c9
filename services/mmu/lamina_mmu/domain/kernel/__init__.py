"""The port to the kernel of this machine, and the formats of its files in /proc and /sys."""
