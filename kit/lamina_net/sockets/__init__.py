"""What users of the stack call: a handle for each socket, one module a family."""
