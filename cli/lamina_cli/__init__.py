"""The `lamina` command, the one program that knows all layers: here, its words and the order of the layers."""
