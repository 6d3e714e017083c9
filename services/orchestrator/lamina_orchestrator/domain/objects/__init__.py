"""What can be done with an object of any kind: name, select, own, patch, read from a manifest."""
