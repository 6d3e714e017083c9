"""Frames given and taken: allocation, contiguous extents, compaction, offlining."""
