"""Replays of recorded accesses: what is asked, its passes, and what comes out."""
