"""Replacement policies, compiled: one a module, and the pass that runs any of them."""
