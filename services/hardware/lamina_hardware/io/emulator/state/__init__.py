"""The state of a core in memory that compiled code shares: where each word lies and what it means."""
