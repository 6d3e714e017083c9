"""What carries frames: the interface, and an engine in each package."""
