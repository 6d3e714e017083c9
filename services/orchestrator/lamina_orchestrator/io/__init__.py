"""What touches the world: the store, streams to the container runtimes, tasks."""
