"""Charts as primitives on a canvas, and the formats that they are drawn in."""
