"""The data plane for frames in memory: bursts, flat tables, and the compiled code that switches them."""
