"""Between contract and domain: the only code that knows both a message and a type of the domain."""
