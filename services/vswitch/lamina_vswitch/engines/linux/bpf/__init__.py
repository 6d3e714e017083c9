"""eBPF programs that tag and untag frames at a device, and how they are attached."""
