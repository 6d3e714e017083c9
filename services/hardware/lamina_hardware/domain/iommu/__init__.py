"""The IOMMU: how a DMA address becomes a physical one, what caches that, and what is refused."""
