"""Memory objects: their content, and the suppliers from which missing pages come."""
