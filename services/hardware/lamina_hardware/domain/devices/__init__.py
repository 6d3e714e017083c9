"""What every device has: configuration space, driver, DMA; and the DMA engine, the first one."""
