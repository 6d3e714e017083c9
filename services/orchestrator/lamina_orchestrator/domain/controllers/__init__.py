"""Controllers: each looks at the objects of one kind and returns the actions that it wants."""
