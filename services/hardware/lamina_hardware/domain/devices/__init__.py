"""What every device has: PCI configuration space, a driver, DMA; and the first device, a DMA engine."""
