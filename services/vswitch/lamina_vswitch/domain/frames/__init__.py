"""One Ethernet frame: its head, what it carries beside its bytes, and why it goes nowhere."""
