"""Segmentation and receive offload: long packets cut and merged, with the same bytes on the wire."""
