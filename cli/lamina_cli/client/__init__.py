"""How a command finds a stack that is up and calls its layers: channels, pages, names, recorded traces."""
