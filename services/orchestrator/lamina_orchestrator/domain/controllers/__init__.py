"""Controllers: each compares what is wanted with what is, and returns the actions that are missing."""
