"""What an engine of the container runtime must do, and a package for each engine."""
