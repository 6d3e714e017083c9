"""The way of a DMA address to memory: domains, tables, and what is refused."""
