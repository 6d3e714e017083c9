"""A NIC: descriptor rings, and what it does to a frame that it sends or receives."""
