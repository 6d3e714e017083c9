"""The hardware and the MMU as this layer uses them: sessions, calls, runs, and who performs effects with them."""
