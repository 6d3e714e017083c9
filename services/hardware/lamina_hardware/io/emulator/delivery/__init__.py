"""Events on their way to a handler: what goes through the tables of a guest to its kernel."""
