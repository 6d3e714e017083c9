"""Replacement policies compiled for replays, one a module, and the pass that runs any of them."""
