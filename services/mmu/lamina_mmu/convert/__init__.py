"""Between contract and domain: the only code that knows both, a module for each part of the contract."""
