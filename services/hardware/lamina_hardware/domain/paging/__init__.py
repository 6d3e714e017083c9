"""Translation as the manual says it: walks that explain, modes, and what a TLB holds."""
