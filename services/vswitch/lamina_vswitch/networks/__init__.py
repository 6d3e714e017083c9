"""Networks of a host at work: their definitions, addresses and records."""
