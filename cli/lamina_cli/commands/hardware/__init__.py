"""Words below `lamina hardware`, a module for each kind of part."""
