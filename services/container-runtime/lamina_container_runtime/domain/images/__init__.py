"""Images as data: references, digests, OCI documents, and layers as trees of changes."""
