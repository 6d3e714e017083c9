"""An image as data: its name, its digest, its documents, its layers as trees of changes."""
