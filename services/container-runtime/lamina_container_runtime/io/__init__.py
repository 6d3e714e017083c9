"""What touches the world: calls to the layers below, images on disk, the database, logs."""
