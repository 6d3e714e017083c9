"""Images on disk: archives read, layers unpacked, blobs stored by digest."""
