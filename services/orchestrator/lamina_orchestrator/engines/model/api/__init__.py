"""What callers ask for: reads, writes through admission, whole manifests."""
