"""One Ethernet frame: its header, its metadata, and the reasons to drop it."""
