"""VMs run on contexts of the hardware and memory of the MMU, pure: calls below are effects."""
