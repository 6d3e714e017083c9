"""What an engine of the MMU must do, and a package for each engine."""
