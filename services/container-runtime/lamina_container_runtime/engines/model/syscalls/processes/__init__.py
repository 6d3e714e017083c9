"""The system calls about processes, who they are, their signals and their time."""
