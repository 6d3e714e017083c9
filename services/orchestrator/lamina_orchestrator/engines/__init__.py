"""What an engine of the orchestrator must do, and a package for each engine."""
