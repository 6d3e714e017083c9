"""Address spaces: their mappings, their settings, and what a caller may ask of a range."""
