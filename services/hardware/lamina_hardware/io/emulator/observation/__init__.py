"""Observed contexts: each access they make, and the TLB that is counted for them."""
