"""How a command reaches a running stack: its state folder, channels, pages of lists, resource names, traces."""
