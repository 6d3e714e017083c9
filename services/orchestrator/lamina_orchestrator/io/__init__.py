"""What touches the world for this layer: stores, streams to runtimes, tasks."""
