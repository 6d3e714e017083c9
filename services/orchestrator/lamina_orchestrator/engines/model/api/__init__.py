"""Calls on objects: reads, writes through admission, and manifests applied."""
