"""What an engine of the switch must do, and a package for each engine."""
