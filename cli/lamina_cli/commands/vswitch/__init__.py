"""Words below `lamina vswitch`, a module for each kind of object."""
