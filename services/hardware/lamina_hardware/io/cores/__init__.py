"""The cores of a host, of whatever kind: which there are, when each runs, who is interrupted."""
