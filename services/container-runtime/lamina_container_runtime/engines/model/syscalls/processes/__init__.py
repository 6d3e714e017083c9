"""System calls about processes, their identity, signals and timers."""
