"""The `lamina` command, the only program that knows all layers: here, its entry and the order of the layers."""
