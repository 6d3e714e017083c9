"""Between contract and domain: the only modules that know both, one for each part of the contract."""
