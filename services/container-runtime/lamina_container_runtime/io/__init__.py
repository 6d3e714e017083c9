"""What touches the world for this layer: files, databases and the calls to the layers below."""
