"""A NIC of the hardware as its driver sees it: descriptors and rings in DMA memory."""
