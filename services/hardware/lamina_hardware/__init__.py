"""The machine of one host: cores, interrupts, DMA, disks, NICs and wires, and the sessions that use them."""
