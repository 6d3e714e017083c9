"""The hardware and the MMU as this layer calls them: sessions, streams of runs, effects performed."""
