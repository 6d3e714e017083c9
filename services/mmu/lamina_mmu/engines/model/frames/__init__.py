"""Whole frames: allocated, in extents, compacted, taken out of use."""
