"""The state of the cluster: the ledger that alone writes it, its cache, the feed of watchers."""
