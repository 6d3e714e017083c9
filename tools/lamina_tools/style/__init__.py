"""The rules of the house as functions: each yields the lines of a file, or of the tree, that break it."""
