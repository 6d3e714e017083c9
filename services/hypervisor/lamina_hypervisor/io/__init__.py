"""What touches the world for this layer: files, databases, tasks and the calls to the layers below."""
