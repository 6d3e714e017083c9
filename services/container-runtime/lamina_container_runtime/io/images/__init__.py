"""Images on disk: reading archives, unpacking layers, the store of blobs."""
