"""The verbs of `lamina vswitch`, a module a kind of object."""
