"""Address spaces: their mappings (VMAs), their settings, and what may be asked of a range."""
