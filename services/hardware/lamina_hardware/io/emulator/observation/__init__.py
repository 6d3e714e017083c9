"""Contexts whose every access is observed: hooks, the queue of accesses, the TLB counted for them."""
