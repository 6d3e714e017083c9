"""Reclaim: which pages are evicted, and how their content is written back first."""
