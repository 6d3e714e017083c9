"""What is done with objects of any kind: naming, selecting, owning, patching, reading manifests."""
