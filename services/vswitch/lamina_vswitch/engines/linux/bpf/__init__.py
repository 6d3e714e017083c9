"""Programs of eBPF that take tags off and put them on, and how they come to a device."""
