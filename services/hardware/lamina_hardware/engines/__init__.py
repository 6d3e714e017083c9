"""What an engine of the hardware must do, and a package for each engine."""
