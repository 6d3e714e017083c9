"""A NIC of the host as its driver sees it: descriptors and rings in memory for DMA."""
