"""Charts: drawn once, written as SVG or PNG."""
