"""Page replacement: an algorithm a module, and the record of what each chose."""
