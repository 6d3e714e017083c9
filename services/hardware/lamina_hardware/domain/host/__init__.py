"""What /proc and /sys say of the real machine, parsed: processors, memory, PCI, facilities."""
