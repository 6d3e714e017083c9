"""Pure types and rules that hold for every engine: what is kept of images, sandboxes and containers."""
