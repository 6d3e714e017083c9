"""The verbs of `lamina hardware`, a module a kind of part."""
