"""A network that the kernel translates: its rules, its TUN device, its conntrack table."""
