"""A disk: its sectors, write cache, queue and transfers, and the groups that share its bandwidth."""
