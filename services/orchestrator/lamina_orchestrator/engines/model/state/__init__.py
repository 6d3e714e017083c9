"""The objects themselves: the one place of writing, the cache with its indices, the feed of watchers."""
